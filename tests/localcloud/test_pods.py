"""What one instance is made of: several containers, volumes, probes, and how it ends."""

import asyncio
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import docker
import google.protobuf
import grpc
import grpc_health
import httpx
import pytest
import typing_extensions
from clouds import PARENT, SOON, Cloud, eventually, push
from google.api_core import exceptions
from google.cloud import run_v2

from localcloud.instances.engine import Engine, Usage

FAST = {"period_seconds": 1, "failure_threshold": 2, "timeout_seconds": 1}


def containers(cloud: Cloud, service: str) -> list[Any]:
    return [each for each in cloud.containers() if each.labels["relais.service"] == service]


def system(cloud: Cloud, service: str) -> list[str]:
    return [each.text_payload for each in cloud.entries("varlog/system", service)]


def sidecar(cloud: Cloud, name: str, port: int = 9000, **values: Any) -> run_v2.Container:
    """The test server again, which gets no requests."""
    env = [run_v2.EnvVar(name=key, value=value) for key, value in values.pop("env", {}).items()]
    command = ["sh", "-c", f"PORT={port} exec python3 -u /app.py"]
    probe = {"http_get": {"path": "/health", "port": port}, **FAST, "failure_threshold": 5}
    return run_v2.Container(name=name, image=cloud.image, command=command, env=env, startup_probe=probe, **values)


def create(cloud: Cloud, name: str, sidecars: list[run_v2.Container], ingress: dict[str, Any], **template: Any) -> run_v2.Service:
    service = cloud.service(name, template={"container": {"name": "web", "ports": [{"container_port": 8080}], **ingress}, **template})
    service.template.containers = [*sidecars, *service.template.containers]
    return cloud.services.create_service(parent=PARENT, service=service, service_id=name).result(polling=SOON)


def test_containers_of_an_instance_talk_over_localhost_and_begin_in_their_order(cloud: Cloud) -> None:
    made = create(cloud, "pair", [sidecar(cloud, "cache", env={"SAY": "from near", "SLOW": "1"})], {"depends_on": ["cache"]})
    assert httpx.get(made.uri + "/near?port=9000").text == "from near"
    assert httpx.get(made.uri + "/near?port=9000&path=env").json()["K_SERVICE"] == "pair"
    found = {each.labels["relais.container"]: each for each in containers(cloud, "pair")}
    assert set(found) == {"cache", "web"}
    assert "PORT=8080" not in found["cache"].attrs["Config"]["Env"]
    assert found["cache"].attrs["State"]["StartedAt"] < found["web"].attrs["State"]["StartedAt"]
    texts = system(cloud, "pair")
    near = next(i for i, text in enumerate(texts) if 'container "cache" on port 9000 path "/health".' in text)
    assert near < next(i for i, text in enumerate(texts) if 'container "web" on port 8080.' in text)
    entries = eventually(lambda: len(found := cloud.entries("stdout", "pair")) == 2 and found)
    assert {each.labels["container_name"] for each in entries} == {"cache", "web"}
    assert {each.labels["instanceId"] for each in entries} == {found["web"].id}


def test_a_container_that_exits_ends_its_whole_instance_and_the_next_request_starts_another(cloud: Cloud) -> None:
    made = create(cloud, "fragile-pair", [sidecar(cloud, "cache")], {})
    ran = {each.id for each in containers(cloud, "fragile-pair")}
    httpx.get(made.uri + "/near?port=9000&path=exit?code=4", timeout=10)
    (told,) = eventually(lambda: cloud.entries("varlog/system", "fragile-pair", 'textPayload="Container called exit(4)."'))
    assert told.labels["container_name"] == "cache"
    assert httpx.get(made.uri + "/near?port=9000", timeout=20).status_code == 200
    eventually(lambda: len(now := {each.id for each in containers(cloud, "fragile-pair")}) == 2 and not now & ran)


def test_a_sidecar_that_does_not_start_fails_the_deployment_and_is_named(cloud: Cloud) -> None:
    with pytest.raises(exceptions.FailedPrecondition, match="The user-provided container failed the configured startup probe checks"):
        create(cloud, "half", [sidecar(cloud, "cache", env={"FAIL": "exit"})], {"depends_on": ["cache"]})
    assert any('STARTUP HTTP probe failed 1 time consecutively for container "cache"' in text for text in system(cloud, "half"))
    assert not any('container "web"' in text for text in system(cloud, "half"))
    assert not containers(cloud, "half")


def test_secret_files_and_shared_memory_are_volumes(cloud: Cloud) -> None:
    cloud.keep_secret("config", b"quiet")
    mounts = [{"name": "shared", "mount_path": "/shared"}]
    made = create(
        cloud,
        "volumes",
        [sidecar(cloud, "cache", volume_mounts=mounts)],
        {"volume_mounts": [*mounts, {"name": "files", "mount_path": "/etc/app/files"}, {"name": "plain", "mount_path": "/plain"}]},
        volumes=[
            {"name": "shared", "empty_dir": {"medium": "MEMORY", "size_limit": "1Mi"}},
            {"name": "files", "secret": {"secret": "config", "items": [{"path": "a/b.txt", "version": "1", "mode": 0o400}]}},
            {"name": "plain", "secret": {"secret": "config"}},
        ],
    )
    assert httpx.get(made.uri + "/read?path=/etc/app/files/a/b.txt").text == "400 quiet"
    assert httpx.get(made.uri + "/read?path=/plain/config").text == "444 quiet"
    httpx.get(made.uri + "/near?port=9000&path=write?path=/shared/x%26text=hello")
    assert httpx.get(made.uri + "/read?path=/shared/x").text.endswith(" hello")
    volumes = docker.from_env().volumes
    label = {"label": f"relais.clone={cloud.clone}"}
    assert len(volumes.list(filters=label)) == 1
    cloud.services.delete_service(name=made.name).result(timeout=30)
    eventually(lambda: not volumes.list(filters=label))


def test_an_instance_that_fails_its_liveness_probe_is_shut_down_and_replaced(cloud: Cloud) -> None:
    probe = {"http_get": {"path": "/health"}, **FAST}
    made = cloud.create("lively", template={"container": {"liveness_probe": probe}})
    (first,) = containers(cloud, "lively")
    httpx.get(made.uri + "/sicken")
    wanted = 'LIVENESS HTTP probe failed 2 times consecutively for container "lively-1" on port 8080 path "/health". The instance has been'
    text = eventually(lambda: [each for each in system(cloud, "lively") if each.startswith(wanted)])[0]
    assert text.endswith("HTTP request returned status 503 Service Unavailable.\nContents: how I am")
    eventually(lambda: httpx.get(made.uri + "/health", timeout=20).status_code == 200)
    eventually(lambda: [each.id for each in containers(cloud, "lively")] not in ([], [first.id]))


@pytest.fixture(scope="module")
def health_image(cloud: Cloud, base_image: str, engine: docker.DockerClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """An image with the gRPC health service, of the packages that are installed here."""
    context, name = tmp_path_factory.mktemp("health"), cloud.image.replace("/web:t1", "/health:1")
    for package in (grpc, grpc_health, google.protobuf):
        folder = Path(package.__file__).parent  # type: ignore[arg-type]
        shutil.copytree(folder, context / "lib" / folder.relative_to(_site(folder)))
    upb = Path(google.protobuf.__file__).parents[1] / "_upb"  # type: ignore[arg-type]
    shutil.copytree(upb, context / "lib" / "google" / "_upb")
    for file in [typing_extensions.__file__, *_c_libraries()]:
        shutil.copy(file, context / "lib")
    shutil.copy(Path(__file__).parent / "app" / "health.py", context)
    dockerfile = f"FROM {base_image}\nCOPY lib /lib/python\nENV PYTHONPATH=/lib/python LD_LIBRARY_PATH=/lib/python\nCOPY health.py /\n"
    (context / "Dockerfile").write_text(dockerfile + 'CMD ["python3", "/health.py"]\n')
    engine.images.build(path=str(context), tag=name, rm=True, forcerm=True)
    push(name)
    yield name
    engine.images.remove(name, force=True)


def _c_libraries() -> set[str]:
    """What grpc needs of the C++ runtime, as this process has it loaded: the base image has none."""
    loaded = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines()}
    names = ("libstdc++.so.6", "libgcc_s.so.1")
    return {str(Path(each).with_name(name)) for each in loaded for name in names if Path(each).name.startswith(name)}


def _site(folder: Path) -> Path:
    return next(each for each in folder.parents if each.name == "site-packages")


@pytest.mark.parametrize(
    ("service", "problem"),
    [("ready", ""), ("ill", "gRPC health check returned status NOT_SERVING."), ("none", "Connection failed with status NOT_FOUND.")],
)
def test_a_grpc_probe_asks_the_standard_health_service(cloud: Cloud, health_image: str, service: str, problem: str) -> None:
    name = f"health-{service}"
    probe = {"grpc": {"service": service}, "initial_delay_seconds": 1, "period_seconds": 1, "failure_threshold": 2 if problem else 9}
    template = {"image": health_image, "container": {"startup_probe": probe}}
    if not problem:
        cloud.create(name, template=template)
        assert any("STARTUP GRPC probe succeeded after" in text for text in system(cloud, name))
        return
    with pytest.raises(exceptions.FailedPrecondition, match="failed the configured startup probe checks"):
        cloud.create(name, template=template)
    assert any("STARTUP GRPC probe failed 2 times" in text and text.endswith(problem) for text in system(cloud, name))


def test_a_container_that_eats_its_memory_at_the_start_fails_the_deployment_and_is_told(cloud: Cloud) -> None:
    code = "kept = [bytearray(b'x' * (1 << 20)) for _ in range(400)]"
    container = {"command": ["python3", "-c", code], "resources": {"limits": {"memory": "128Mi", "cpu": "1"}}}
    with pytest.raises(exceptions.FailedPrecondition, match="failed to start and listen on the port defined"):
        cloud.create("greedy", template={"container": container})
    assert [text.partition("\n")[0].removesuffix(" The instance was not started.") for text in system(cloud, "greedy")[1:]] == [
        "Memory limit of 128 MiB exceeded with 129 MiB used. Consider increasing the memory limit, see "
        "https://cloud.google.com/run/docs/configuring/memory-limits",
        "Container terminated on signal 9.",
        'Default STARTUP TCP probe failed 1 time consecutively for container "greedy-1" on port 8080.',
    ]


def test_limits_are_kept_and_what_a_container_uses_can_be_asked(cloud: Cloud) -> None:
    limits = {"memory": "256Mi", "cpu": "1"}
    made = cloud.create("limited", template={"container": {"resources": {"limits": limits}}})
    (container,) = containers(cloud, "limited")
    host = container.attrs["HostConfig"]
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"]) == (256 * 2**20, 256 * 2**20, 10**9)

    async def ask() -> Usage | None:
        engine = Engine(cloud.clone)
        try:
            return await engine.usage(container.id)
        finally:
            engine.close()

    before = asyncio.run(ask())
    assert before is not None
    assert 2**20 < before.memory_bytes < 256 * 2**20
    httpx.get(made.uri + "/burn?s=1", timeout=20)
    after = asyncio.run(ask())
    assert after is not None
    assert 0.9 < after.cpu_seconds - before.cpu_seconds < 5


def test_a_container_that_ignores_sigterm_is_killed_after_ten_seconds(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    polite, stubborn = cloud.create("polite"), cloud.create("stubborn", env={"STUBBORN": "1"})
    took = {}
    began = time.monotonic()
    for each in (polite, stubborn):
        cloud.services.delete_service(name=each.name)
    for name in ("polite", "stubborn"):
        eventually(lambda name=name: not containers(cloud, name), seconds=25)
        took[name] = time.monotonic() - began
    assert took["polite"] < 10 <= took["stubborn"]


def test_the_output_of_many_containers_that_exit_at_once_is_whole(cloud: Cloud) -> None:
    names = [f"brief-{number}" for number in range(8)]
    code = "import sys; print('\\n'.join(f'line {n}' for n in range(50)), flush=True); print('last', file=sys.stderr)"
    container = {"command": ["python3", "-c", code]}
    begun = []
    for name in names:
        service = cloud.service(name, template={"container": container})
        begun.append(cloud.services.create_service(parent=PARENT, service=service, service_id=name))
    for each in begun:
        with pytest.raises(exceptions.FailedPrecondition):
            each.result(timeout=60)
    for name in names:
        assert len({each.text_payload for each in cloud.entries("stdout", name)}) == 50
        assert [each.text_payload for each in cloud.entries("stderr", name)] == ["last"]
