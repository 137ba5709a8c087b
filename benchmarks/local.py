"""A registry and a local cloud of a benchmark's own, on free ports; nothing of them stays."""

import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import docker
import grpc
from google.cloud import run_v2

from setup import base
from setup.clone import here
from setup.services import registry_config

ROOT = Path(__file__).resolve().parents[1]
PARENT = "projects/bench/locations/europe-west1"
Process = subprocess.Popen[bytes]


def client(channel: grpc.Channel) -> run_v2.ServicesClient:
    """The official client, pointed at a local cloud."""
    return run_v2.ServicesClient(transport=run_v2.ServicesClient.get_transport_class("grpc")(channel=channel))


@contextmanager
def serving(folder: Path, registry: str, clone: str = "") -> Iterator[tuple[Process, int]]:
    """A local cloud with its state below this folder: its process and port, once it serves."""
    port, clone = free_port(), clone or f"bench-{secrets.token_hex(3)}"
    command = [sys.executable, "-m", "localcloud", "--port", str(port), "--state", str(folder / "state"), "--clone", clone]

    def ready() -> bool:  # its port listens before it answers
        return b"serves on" in (folder / "log").read_bytes()

    with _running([*command, "--registry", registry, "--down-removes"], folder, ready, "the local cloud") as process:
        yield process, port


@contextmanager
def registry_with_quick_image(folder: Path, engine: docker.DockerClient) -> Iterator[tuple[str, str]]:
    """A registry and the quick server's image in it: host:port and the image's name."""
    base.ensure(here(), lambda: None)
    port = free_port()
    config = folder / "registry.yml"
    config.write_text(registry_config(port, folder / "data"))
    image = f"localhost:{port}/bench/quick/server:1"
    with _running(["docker-registry", "serve", str(config)], folder / "registry", lambda: _listens(port), "the registry"):
        try:
            _push(engine, image)
            yield f"localhost:{port}", image
        finally:
            for found in engine.images.list(name=image.rpartition(":")[0]):
                engine.images.remove(str(found.id), force=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A folder that goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="relais-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(command: list[str], folder: Path, ready: Callable[[], bool], what: str) -> Iterator[Process]:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
    try:
        _eventually(ready, what, folder / "log")
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _push(engine: docker.DockerClient, image: str) -> None:
    with tempfile.TemporaryDirectory() as context:
        shutil.copy(ROOT / "benchmarks" / "quick" / "server.py", context)
        (Path(context) / "Dockerfile").write_text(f'FROM {base.image_name()}\nCOPY server.py /\nCMD ["python3", "-u", "/server.py"]\n')
        engine.images.build(path=context, tag=image, rm=True, forcerm=True)
    for item in engine.images.push(image, stream=True, decode=True):
        if "error" in item:
            raise SystemExit(f"the image could not be pushed: {item['error']}")


def _eventually(ready: Callable[[], bool], what: str, log: Path) -> None:
    until = time.monotonic() + 60
    while not ready():
        if time.monotonic() > until:
            raise SystemExit(f"{what} did not start within 60 s:\n" + log.read_text(errors="replace")[-3000:])
        time.sleep(0.02)


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(2)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
