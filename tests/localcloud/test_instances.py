"""Containers: how they start, fail to start, print, die, idle and come back."""

import time
from collections.abc import Callable
from typing import Any

import docker
import httpx
import pytest
from clouds import PARENT, Cloud, eventually, push
from google.api_core import exceptions
from google.cloud import run_v2, secretmanager_v1

START_TEXT = (
    r"Revision 'NAME' is not ready and cannot serve traffic. The user-provided container failed to start and listen on the port defined "
    r"provided by the PORT=8080 environment variable within the allocated timeout."
)


def containers(cloud: Cloud, service: str) -> list[Any]:
    return [each for each in cloud.containers() if each.labels["relais.service"] == service]


def system(cloud: Cloud, service: str) -> list[str]:
    return [each.text_payload for each in cloud.entries("varlog/system", service)]


@pytest.mark.parametrize(("fault", "line"), [("exit", "Container called exit(3)."), ("deaf", "STARTUP TCP probe failed 1 time")])
def test_a_container_that_does_not_listen_fails_the_deployment_in_the_real_words(cloud: Cloud, fault: str, line: str) -> None:
    name = f"fail-{fault}"
    with pytest.raises(exceptions.FailedPrecondition, match=START_TEXT.replace("NAME", f"{name}-a")):
        cloud.create(name, revision=f"{name}-a", env={"FAIL": fault})
    service = cloud.get(name)
    assert (service.uri, service.latest_ready_revision, service.observed_generation) == ("", "", 0)
    assert {each.type_: each.state.name for each in service.conditions} == dict.fromkeys(
        ("RoutesReady", "ConfigurationsReady"), "CONDITION_FAILED"
    )
    revision = cloud.revisions.get_revision(name=service.latest_created_revision)
    ready = next(each for each in revision.conditions if each.type_ == "Ready")
    assert (ready.state.name, ready.revision_reason.name) == ("CONDITION_FAILED", "HEALTH_CHECK_CONTAINER_ERROR")
    eventually(lambda: any(line in text for text in system(cloud, name)))
    eventually(lambda: not containers(cloud, name))
    if fault == "exit":
        assert [each.text_payload for each in cloud.entries("stderr", name)] == ["cannot go on"]


def test_a_command_that_does_not_exist_fails_the_deployment(cloud: Cloud) -> None:
    with pytest.raises(exceptions.FailedPrecondition, match="failed to start and listen"):
        cloud.create("no-command", template={"container": {"command": ["/no/such/program"]}})
    eventually(lambda: not containers(cloud, "no-command"))


def test_an_image_that_is_not_in_the_registry_is_named(cloud: Cloud) -> None:
    missing = cloud.image.replace(":t1", ":none")
    with pytest.raises(exceptions.FailedPrecondition, match=f"Image '{missing}' not found."):
        cloud.create("no-image", template={"image": missing})
    with pytest.raises(exceptions.FailedPrecondition, match="not found"):
        cloud.create("no-repository", template={"image": f"{cloud.registry}/nowhere/at/all:1"})
    with pytest.raises(exceptions.FailedPrecondition, match="could not be fetched"):
        cloud.create("no-registry", template={"image": "localhost:1/a/b:1"})
    with pytest.raises(exceptions.InvalidArgument, match="must be a container image path in the form"):
        cloud.create("no-name", template={"image": "https://localhost:1/a/b:1"})
    assert not cloud.get("no-registry").reconciling


def test_an_image_for_another_machine_is_refused(cloud: Cloud, engine: docker.DockerClient) -> None:
    tag = f"{cloud.registry}/test-project/app/arm:1"
    engine.api.import_image_from_data(_empty_tar(), repository=tag.rsplit(":", 1)[0], tag="1", changes=['CMD ["/x"]'])
    made = _for_arm(engine, tag)
    push(made)
    with pytest.raises(exceptions.FailedPrecondition, match=f"Cloud Run does not support image '{made}': .* must support amd64/linux"):
        cloud.create("arm", template={"image": made})
    engine.images.remove(made, force=True)


def _empty_tar() -> bytes:
    return b"\0" * 10240


def _for_arm(engine: docker.DockerClient, tag: str) -> str:
    """The same image with another architecture in its configuration: saved, changed, loaded."""
    import io
    import json
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.images.get(tag).save(named=True)))) as source:
        files = {each.name: source.extractfile(each).read() for each in source.getmembers() if each.isfile()}  # type: ignore[union-attr]
    manifest = json.loads(files["manifest.json"])
    config = json.loads(files[manifest[0]["Config"]])
    config["architecture"] = "arm64"
    files[manifest[0]["Config"]] = json.dumps(config).encode()
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as target:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            target.addfile(info, io.BytesIO(data))
    engine.images.remove(tag, force=True)
    engine.images.load(out.getvalue())
    assert engine.images.get(tag).attrs["Architecture"] == "arm64"
    return tag


def test_the_tag_is_resolved_when_the_revision_is_made(cloud: Cloud, engine: docker.DockerClient) -> None:
    tag = cloud.image.replace(":t1", ":moves")
    engine.images.get(cloud.image).tag(tag.rsplit(":", 1)[0], "moves")
    push(tag)
    made = cloud.create("digest", template={"image": tag})
    (running,) = containers(cloud, "digest")
    assert "@sha256:" in running.attrs["Config"]["Image"]
    assert cloud.revisions.get_revision(name=made.latest_ready_revision).containers[0].image == tag


def test_a_slow_start_within_the_budget_is_waited_for(cloud: Cloud) -> None:
    began = time.monotonic()
    made = cloud.create("slow-start", env={"SLOW": "1.5"})
    assert time.monotonic() - began > 1.5
    assert httpx.get(made.uri).status_code == 200


def test_a_declared_http_probe_decides(cloud: Cloud) -> None:
    probe = {"period_seconds": 1, "failure_threshold": 2, "timeout_seconds": 1, "http_get": {"path": "/status?code=500"}}
    with pytest.raises(exceptions.FailedPrecondition):
        cloud.create("probed", template={"container": {"startup_probe": probe}})
    assert any("STARTUP HTTP probe failed 2 times" in text for text in system(cloud, "probed"))
    probe["http_get"] = {"path": "/"}
    service = cloud.named("probed", template={"container": {"startup_probe": probe}})
    assert httpx.get(cloud.update(service).uri).status_code == 200


def test_lines_become_entries_with_their_severity_once_each(cloud: Cloud) -> None:
    made = cloud.create("printing")
    (first,) = eventually(lambda: cloud.entries("stdout", "printing"))
    assert (first.severity, dict(first.json_payload)["message"]) == (300, "starting")
    httpx.get(made.uri + "/print?text=plain")
    httpx.get(made.uri + "/print?text=trouble&err=1")
    httpx.get(made.uri + "/lines?n=500")
    httpx.get(made.uri + "/long?n=100000")
    assert eventually(lambda: cloud.entries("stderr", "printing"))[0].text_payload == "trouble"
    found = eventually(lambda: len(cloud.entries("stdout", "printing")) == 503 and cloud.entries("stdout", "printing"))
    assert len({each.text_payload for each in found if each.text_payload.startswith("line ")}) == 500
    assert max(len(each.text_payload) for each in found) == 100_000


def test_a_container_that_dies_is_told_and_started_again_by_the_next_request(cloud: Cloud) -> None:
    made = cloud.create("dying")
    assert httpx.get(made.uri + "/exit?code=7", timeout=10).status_code == 503
    assert httpx.get(made.uri, timeout=20).status_code == 200
    eventually(lambda: "Container called exit(7)." in system(cloud, "dying"))
    eventually(lambda: len(containers(cloud, "dying")) == 1)


def test_a_container_over_its_memory_limit_is_told(cloud: Cloud) -> None:
    made = cloud.create("hungry", template={"container": {"resources": {"limits": {"memory": "128Mi", "cpu": "1"}}}})
    assert httpx.get(made.uri + "/eat?mib=400", timeout=30).status_code == 503
    eventually(lambda: any(text.startswith("Memory limit of 128 MiB exceeded") for text in system(cloud, "hungry")))
    assert httpx.get(made.uri, timeout=20).status_code == 200


def test_a_service_whose_instance_cannot_start_any_more_answers_503(cloud: Cloud) -> None:
    version = cloud.keep_secret("fragile", b"x")
    service = cloud.named("fragile")
    source = {"secret_key_ref": {"secret": "fragile", "version": "1"}}
    service.template.containers[0].env = [run_v2.EnvVar(name="S", value_source=source)]
    request = run_v2.UpdateServiceRequest(service=service, allow_missing=True)
    made = cloud.services.update_service(request).result(timeout=30)
    secrets = secretmanager_v1.SecretManagerServiceClient
    secrets(transport=secrets.get_transport_class("grpc")(channel=cloud.channel)).disable_secret_version(name=version)
    httpx.get(made.uri + "/exit?code=1", timeout=10)
    answer = httpx.get(made.uri, timeout=20)
    assert (answer.status_code, answer.text) == (503, "Service Unavailable")
    assert cloud.entries("requests", "fragile")[-1].text_payload == "The request failed because the instance could not start successfully."


def test_a_dead_engine_is_a_clear_sentence(own_cloud: Callable[..., Cloud], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    cloud = own_cloud()
    with pytest.raises(exceptions.ServiceUnavailable, match=r"The Docker Engine does not answer at unix:///nowhere/docker.sock"):
        cloud.services.create_service(parent=PARENT, service=cloud.service("engine"), service_id="engine", timeout=5)
    with pytest.raises(exceptions.NotFound):
        cloud.get("engine")
    monkeypatch.delenv("DOCKER_HOST")
