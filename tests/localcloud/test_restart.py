"""What a restart of the local cloud keeps, and what its command line says."""

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import docker
import grpc
import httpx
import pytest
from clouds import PARENT, ROOT, SOON, Cloud, eventually, free_port, pinned
from google.longrunning import operations_pb2, operations_pb2_grpc


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_services_urls_and_running_containers_outlive_the_process(own_cloud: Callable[..., Cloud], how: int) -> None:
    cloud = own_cloud()
    cloud.create("stays", revision="stays-a", env={"SAY": "a"})
    service = cloud.get("stays")
    service.template = cloud.template({"SAY": "b"}, "stays-b")
    service.traffic = [pinned("stays-a", 100), pinned("stays-b", 0, "next")]
    before = cloud.update(service, "template", "traffic")
    (tagged,) = [each.uri for each in before.traffic_statuses if each.tag]
    ran = {each.id for each in cloud.containers(running=True)}
    code = cloud.stop(how)
    assert how == signal.SIGKILL or code == 0
    assert {each.id for each in cloud.containers(running=True)} == ran
    cloud.start()
    assert cloud.get("stays") == before
    assert (httpx.get(before.uri).text, httpx.get(tagged).text) == ("a", "b")
    assert {each.id for each in cloud.containers(running=True)} == ran


def test_no_line_is_lost_or_doubled_by_a_restart(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    made = cloud.create("lines")
    httpx.get(made.uri + "/lines?n=50")
    eventually(lambda: len(cloud.entries("stdout", "lines")) == 51)
    (container,) = cloud.containers(running=True)
    cloud.stop()
    port = container.attrs["NetworkSettings"]["Ports"]["8080/tcp"][0]["HostPort"]
    httpx.get(f"http://127.0.0.1:{port}/print?text=meanwhile")
    cloud.start()
    eventually(lambda: len(cloud.entries("stdout", "lines")) == 52)
    time.sleep(0.5)
    texts = [each.text_payload for each in cloud.entries("stdout", "lines")]
    assert (len(texts), texts.count("meanwhile")) == (52, 1)


def test_lines_that_were_printed_just_before_a_crash_are_there_once_each(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    made = cloud.create("crash")
    for _ in range(3):
        httpx.get(made.uri + "/lines?n=100")
    cloud.stop(signal.SIGKILL)
    cloud.start()
    eventually(lambda: len(cloud.entries("stdout", "crash")) >= 301)
    time.sleep(0.5)
    assert len(cloud.entries("stdout", "crash")) == 301


def test_containers_end_with_the_local_cloud_when_asked(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud("--down-removes")
    cloud.create("ends")
    assert cloud.stop() == 0
    assert not cloud.containers()


def test_it_ends_soon_though_a_request_hangs_and_a_container_ignores_sigterm(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud("--down-removes")
    deaf = "import signal, runpy; signal.signal(15, signal.SIG_IGN); signal.signal = lambda *_: None; runpy.run_path('/app.py')"
    made = cloud.create("stubborn", template={"container": {"command": ["python3", "-c", deaf]}})

    def hang() -> None:
        with contextlib.suppress(httpx.HTTPError):
            httpx.get(made.uri + "/sleep?s=60", timeout=60)

    request = threading.Thread(target=hang)
    request.start()
    eventually(lambda: cloud.entries("varlog/system", "stubborn"))
    assert cloud.stop() == 0
    request.join(5)
    assert not cloud.containers()


def test_a_container_that_died_meanwhile_is_told_and_replaced(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    made = cloud.create("lost")
    cloud.stop()
    (container,) = cloud.containers(running=True)
    container.kill()
    cloud.start()
    assert httpx.get(made.uri, timeout=20).status_code == 200
    texts = eventually(lambda: [each.text_payload for each in cloud.entries("varlog/system", "lost", 'textPayload:"signal"')])
    assert texts == ["Container terminated on signal 9."]
    eventually(lambda: len(cloud.containers()) == 1)


def test_a_deployment_that_was_under_way_is_finished(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    begun = cloud.services.create_service(
        parent=PARENT, service=cloud.service("resumed", env={"SLOW": "1.5"}), service_id="resumed"
    )
    eventually(lambda: cloud.containers(running=True))
    cloud.stop(signal.SIGKILL)
    cloud.start()
    request = operations_pb2.WaitOperationRequest(name=begun.operation.name)
    request.timeout.FromSeconds(20)
    operation = operations_pb2_grpc.OperationsStub(cloud.channel).WaitOperation(request)
    assert operation.done
    assert not operation.HasField("error"), operation.error
    assert httpx.get(cloud.get("resumed").uri).status_code == 200
    eventually(lambda: len(cloud.containers()) == 1)


def test_down_removes_the_clones_containers_only(own_cloud: Callable[..., Cloud]) -> None:
    one, other = own_cloud(), own_cloud()
    for cloud in (one, other):
        cloud.services.create_service(parent=PARENT, service=cloud.service("web"), service_id="web").result(polling=SOON)
    one.stop()
    one.down()
    assert (len(one.containers()), len(other.containers(running=True))) == (0, 1)


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "localcloud", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False)


def test_it_serves_this_machine_only(tmp_path: Path) -> None:
    done = run("--host", "0.0.0.0", "--state", str(tmp_path), "--registry", "localhost:1", "--clone", "x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "is not a loopback address" in done.stderr
    done = run("--host", "::1", "--state", str(tmp_path), "--registry", "localhost:1", "--clone", "x")
    assert "is not a loopback address of IPv4" in done.stderr
    assert "With --allow-remote it serves whoever reaches that address." in done.stderr


def test_a_port_in_use_and_a_state_in_use_are_one_sentence_each(own_cloud: Callable[..., Cloud], tmp_path: Path) -> None:
    cloud = own_cloud()
    common = ("--registry", "localhost:1", "--clone", "x")
    done = run("--port", str(cloud.port), "--state", str(tmp_path / "other"), *common)
    assert done.returncode == 1
    assert f"Port {cloud.port} on 127.0.0.1 is in use" in done.stderr
    assert "Traceback" not in done.stderr
    assert "secrets" not in done.stderr
    (tmp_path / "other" / "secrets").mkdir()
    (tmp_path / "other" / "secrets" / "token").write_text("old")
    done = run("--port", str(free_port()), "--admin-port", str(cloud.port), "--state", str(tmp_path / "other"), *common)
    warned, told = done.stderr.splitlines()
    assert f"the files in {tmp_path / 'other' / 'secrets'} are not read any more" in warned
    assert f"Port {cloud.port} on 127.0.0.1 is in use: choose another with --admin-port" in told
    done = run("--port", "65536", "--state", str(tmp_path / "other"), *common)
    assert "'65536' is not a port: use 1 to 65535" in done.stderr
    done = run("--port", "9", "--state", str(cloud.state), *common)
    assert "Another localcloud uses the state" in done.stderr


def test_a_state_that_is_none_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "cloud.sqlite").write_text("this is no database, and it is long enough to be taken for one")
    done = run("--state", str(tmp_path), "--registry", "localhost:1", "--clone", "x")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "a file of the state cannot be used (file is not a database)" in done.stderr


def test_the_state_is_for_its_user_alone(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    files = [path for path in cloud.state.rglob("*") if path.is_file()]
    assert {path.name for path in files} >= {"cloud.sqlite", "logs.sqlite"}
    assert not [path for path in files if path.stat().st_mode & 0o077]


def test_a_port_that_somebody_took_meanwhile_is_replaced_and_told(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    before = cloud.create("moved", env={"SAY": "here"})
    cloud.stop()
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(before.uri.rsplit(":", 1)[1])))
        other.listen()
        cloud.start()
        after = cloud.get("moved")
        assert after.uri != before.uri
        assert httpx.get(after.uri).text == "here"


@pytest.mark.parametrize("slow", ["0", "2"])  # slow: the first request's own instance is still starting when the old one is taken up
def test_containers_of_an_engine_that_answers_late_are_taken_up_then(own_cloud: Callable[..., Cloud], tmp_path: Path, slow: str) -> None:
    cloud = own_cloud()
    made = cloud.create("late", env={"SAY": "here", "SLOW": slow})
    (ran,) = cloud.containers(running=True)
    cloud.stop()
    link = tmp_path / "docker.sock"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", f"unix://{link}")
        cloud.start()
    assert httpx.get(made.uri, timeout=10).status_code == 503
    link.symlink_to("/var/run/docker.sock")
    eventually(lambda: httpx.get(made.uri, timeout=20).status_code == 200)
    eventually(lambda: len(cloud.containers()) == 1)
    assert cloud.containers()[0].id == ran.id or cloud.containers()[0].status == "running"


def test_an_engine_that_hangs_does_not_hold_up_the_start(own_cloud: Callable[..., Cloud], tmp_path: Path) -> None:
    cloud = own_cloud()
    made = cloud.create("hangs", env={"SAY": "here"})
    cloud.stop()
    link, began = tmp_path / "docker.sock", time.monotonic()
    with socket.socket(socket.AF_UNIX) as deaf, pytest.MonkeyPatch.context() as patch:
        deaf.bind(str(link))
        deaf.listen()
        patch.setenv("DOCKER_HOST", f"unix://{link}")
        cloud.start()
        assert cloud.get("hangs") == made
        assert time.monotonic() - began < 25  # a call of the Engine has 30 s
    link.unlink()
    link.symlink_to("/var/run/docker.sock")
    eventually(lambda: httpx.get(made.uri, timeout=20).status_code == 200)
    eventually(lambda: len(cloud.containers()) == 1)


def test_it_serves_other_machines_when_it_is_allowed_to(own_cloud: Callable[..., Cloud], engine: docker.DockerClient) -> None:
    cloud = own_cloud("--host", "0.0.0.0", "--allow-remote")
    made = cloud.create("far", env={"SAY": "here"})
    outside = engine.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
    with grpc.insecure_channel(f"{outside}:{cloud.port}") as channel:
        stub = operations_pb2_grpc.OperationsStub(channel)
        assert stub.ListOperations(operations_pb2.ListOperationsRequest(name=PARENT), timeout=10).operations
    assert httpx.get(f"http://{outside}:{made.uri.rsplit(':', 1)[1]}").text == "here"
    assert "WARNING: it serves on 0.0.0.0, not only on this machine" in cloud.own_log()
