"""The sample's image: built without a network on Debian's packages, serving the whole contract of its release file."""

import contextlib
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
import yaml
from docker.models.containers import Container
from emergence import SAMPLE

LABEL = "relais.tests.examples"


@pytest.fixture(scope="module")
def container(engine: docker.DockerClient, base_image: str, laid_out: Path) -> Iterator[Container]:
    assert f"ARG BASE={base_image}\n" in (laid_out / "Dockerfile").read_text()
    subprocess.run(["npm", "run", "build"], cwd=laid_out, capture_output=True, timeout=60, check=True)
    image, log = engine.images.build(path=str(laid_out), network_mode="none", rm=True, forcerm=True, labels={LABEL: "1"})
    assert any(text in item.get("stream", "") for item in log for text in ("Embedding model", "Using cache"))
    ports: dict[str, Any] = {"9000/tcp": ("127.0.0.1", None)}
    started = engine.containers.run(image, detach=True, mem_limit="2g", environment={"PORT": "9000"}, ports=ports, labels={LABEL: "1"})
    yield started
    started.remove(force=True)
    with contextlib.suppress(docker.errors.APIError):
        engine.images.remove(image.id)


@pytest.fixture(scope="module")
def url(container: Container) -> str:
    container.reload()
    url = f"http://127.0.0.1:{container.ports['9000/tcp'][0]['HostPort']}"
    until = time.monotonic() + 30
    while time.monotonic() < until:
        with contextlib.suppress(httpx.TransportError):
            httpx.get(url + "/api/health", timeout=5)
            return url
        time.sleep(0.1)
    raise AssertionError(container.logs().decode())


def release() -> dict[str, dict[str, object]]:
    return dict(yaml.safe_load((SAMPLE / "app" / "release.yaml").read_text(encoding="utf-8")))


def test_health_says_what_the_runbook_expects(url: str) -> None:
    assert httpx.get(url + "/api/health").text == '{"status":"ok","message":"Emergence Backend is running."}'


def test_every_metric_that_the_release_declares_has_its_help_and_type(url: str) -> None:
    text = httpx.get(url + "/api/metrics").text
    groups = release()["verify"]["http"][1]["metrics"]  # type: ignore[index]
    names = [name for group in groups for name in group["names"]]
    assert len(names) == 8
    for name in names:
        assert f"# HELP {name} " in text
        assert f"# TYPE {name} " in text


def test_a_message_increments_the_labelled_counter(url: str) -> None:
    line = 'memory_preferences_extracted_total{type="preference"} 1.0'
    assert httpx.post(url + "/api/memory/analyze", json={"message": "Je préfère utiliser Python pour mes projets"}).status_code == 202
    until = time.monotonic() + 10
    while line not in (text := httpx.get(url + "/api/metrics").text) and time.monotonic() < until:
        time.sleep(0.05)
    assert line in text


def test_the_front_end_is_served_with_hashed_names(url: str) -> None:
    page = httpx.get(url + "/").text
    script = page.partition('src="')[2].partition('"')[0]
    assert script.startswith("assets/app.")
    assert httpx.get(f"{url}/{script}").status_code == 200


def test_a_chat_answers_over_a_websocket(url: str) -> None:
    from websockets.sync.client import connect

    with connect(url.replace("http", "ws") + "/ws/matin", open_timeout=5) as chat:
        chat.send("bonjour")
        assert "bonjour" in str(chat.recv(timeout=5))


def test_it_logs_the_lines_and_ends_on_sigterm(container: Container, url: str) -> None:
    assert httpx.get(url + "/api/health").status_code == 200
    said = container.logs().decode().splitlines()
    logs = release()["verify"]["logs"]
    assert set(logs["expect"]) <= set(said)  # type: ignore[call-overload]
    assert not [line for line in said for word in logs["forbid"] if word in line]  # type: ignore[call-overload]
    begun = time.monotonic()
    container.stop(timeout=10)
    container.reload()
    assert container.attrs["State"]["ExitCode"] == 0
    assert time.monotonic() - begun < 5


def test_a_crash_at_start_ends_the_container(engine: docker.DockerClient, container: Container) -> None:
    crashing = engine.containers.run(container.image.id, detach=True, environment={"FAULT_CRASH_AT_START": "1"}, labels={LABEL: "1"})
    try:
        assert crashing.wait(timeout=20)["StatusCode"] == 1
        assert "RuntimeError" in crashing.logs().decode()
    finally:
        crashing.remove(force=True)
