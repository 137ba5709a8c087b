"""The real parts that tests share: one Engine, one registry, one local cloud, one Prefect server, each started when first asked for."""

import contextlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import docker
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from soaking import Soak  # noqa: E402

from setup import base  # noqa: E402
from setup.clone import here  # noqa: E402
from setup.services import registry_config  # noqa: E402

# The tests have servers of their own: nothing may reach the services of this clone, or write where they write.
for _name in [name for name in os.environ if name.startswith(("PREFECT_", "RELAIS_", "CLOUDRUN_"))]:
    del os.environ[_name]
_PREFECT_HOME = tempfile.mkdtemp(prefix="relais-tests-prefect-")
os.environ.update(PREFECT_HOME=_PREFECT_HOME, PREFECT_SERVER_ANALYTICS_ENABLED="false", DO_NOT_TRACK="1")
os.environ["RELAIS_BASE_IMAGE"] = base.image_name()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of the long tests."""
    parser.addoption("--soak", action="store_true", help="run the load, kill and fault tests whole (make soak)")
    parser.addoption("--seed", type=int, default=20261125, help="the seed of what the long tests choose by chance")


@pytest.fixture(scope="session")
def soak(request: pytest.FixtureRequest) -> Soak:
    """How much of the long tests is asked for."""
    return Soak(request.config.getoption("--soak"), request.config.getoption("--seed"))


def pytest_configure() -> None:
    """A SIGTERM ends the session as Ctrl-C does, so that its servers end too; also where a shell had SIGINT ignored."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    """Leave nothing behind."""
    shutil.rmtree(_PREFECT_HOME, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@dataclass
class Server:
    """A process of this session, with its log; ready when `ready` says so."""

    command: list[str]
    log: Path
    ready: Callable[[], bool]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    def start(self, within: float = 60) -> None:
        """Start it, and wait until it answers."""
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, cwd=ROOT, env={**os.environ, "PYTHONUNBUFFERED": "1"}
            )
        until = time.monotonic() + within
        while not self.ready():
            if self.process.poll() is not None or time.monotonic() > until:
                self.kill()
                raise RuntimeError(f"{self.command[:3]} did not start:\n" + self.log.read_text(errors="replace")[-3000:])
            time.sleep(0.05)

    def stop(self, within: float = 20) -> None:
        """Ask it to end, and insist after a while."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(within)
        self.kill()

    def kill(self) -> None:
        """End it with no chance to tidy up."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)


@dataclass
class Cloud:
    """A local cloud of this session: its own clone id, state and port."""

    host: str
    registry: str
    images: str  # where Docker pushes to: the local cloud's own front, before the registry
    state: Path
    clone: str
    server: Server

    def restart(self) -> None:
        """Stop it in good order and start it again on the same state and port."""
        self.server.stop()
        self.server.start()

    def start(self) -> None:
        """Start it again after `kill`."""
        self.server.start()

    def kill(self) -> None:
        """End it as a power cut would."""
        self.server.kill()


def _listens(host: str) -> bool:
    name, _, port = host.rpartition(":")
    try:
        socket.create_connection((name, int(port)), timeout=2).close()
    except OSError:
        return False
    return True


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=2):
            return True
    except OSError:
        return False


def start_cloud(folder: Path, registry: str, *options: str) -> Cloud:
    """A local cloud with its state below this folder; options as its command line takes them."""
    host, clone, state = f"127.0.0.1:{_free_port()}", f"t{secrets.token_hex(3)}", folder / "state"
    images = _free_port()
    state.mkdir(parents=True)
    command = [sys.executable, "-m", "localcloud", "--port", host.rpartition(":")[2]]
    command += ["--state", str(state), "--registry", registry, "--registry-port", str(images), "--clone", clone, *options]
    cloud = Cloud(host, registry, f"localhost:{images}", state, clone, Server(command, folder / "localcloud.log", lambda: _listens(host)))
    cloud.start()
    return cloud


def remove_all(engine: docker.DockerClient, cloud: Cloud) -> None:
    """Remove the containers of a test's local cloud and the images made for it, and nothing else."""
    label: dict[str, str | list[str] | bool] = {"label": f"relais.clone={cloud.clone}"}

    def gone(container: docker.models.containers.Container) -> None:
        with contextlib.suppress(docker.errors.APIError):
            container.remove(force=True, v=True)

    with ThreadPoolExecutor(4) as side_by_side:  # one takes 0.1 s
        list(side_by_side.map(gone, engine.containers.list(all=True, filters=label, ignore_removed=True)))
    for image in engine.images.list(filters=label):
        with contextlib.suppress(docker.errors.APIError):
            engine.images.remove(str(image.id), force=True)
    for image in engine.images.list():
        for name in (*image.tags, *image.attrs["RepoDigests"]):
            if name.startswith(f"{cloud.images}/"):
                with contextlib.suppress(docker.errors.APIError):
                    engine.images.remove(name, force=True)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives a port that nobody listens on."""
    return _free_port


@pytest.fixture(scope="session")
def engine() -> Iterator[docker.DockerClient]:
    """The machine's Docker Engine."""
    try:
        client = docker.from_env(timeout=60)
        client.ping()
    except docker.errors.DockerException as error:
        pytest.fail(f"no Docker Engine answers ({error}): `make test` brings one up", pytrace=False)
    yield client
    client.close()


@pytest.fixture(scope="session")
def base_image(engine: docker.DockerClient) -> str:  # noqa: ARG001 - it has to be there first
    """The sample's base image, made when it is not there yet."""
    base.ensure(here(), lambda: None)
    return base.image_name()


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real registry, empty at the start: its `localhost:PORT`."""
    folder, port = tmp_path_factory.mktemp("registry"), _free_port()
    config = folder / "config.yml"
    config.write_text(registry_config(port, folder / "data"))
    server = Server(["docker-registry", "serve", str(config)], folder / "registry.log", lambda: _answers(f"http://127.0.0.1:{port}/v2/"))
    try:
        server.start(within=20)
        yield f"localhost:{port}"
    finally:
        server.stop()


@pytest.fixture(scope="session")
def cloud(tmp_path_factory: pytest.TempPathFactory, registry: str, engine: docker.DockerClient) -> Iterator[Cloud]:
    """A local cloud for the whole session; a test uses service names of its own."""
    cloud = start_cloud(tmp_path_factory.mktemp("cloud"), registry)
    try:
        yield cloud
    finally:
        cloud.server.stop()
        remove_all(engine, cloud)


@pytest.fixture
def new_cloud(tmp_path: Path, registry: str, engine: docker.DockerClient) -> Iterator[Callable[..., Cloud]]:
    """Starts a local cloud for one test alone, for what would disturb the others; options as its command line takes them."""
    started: list[Cloud] = []

    def start(*options: str) -> Cloud:
        started.append(start_cloud(tmp_path / f"cloud{len(started)}", registry, *options))
        return started[-1]

    try:
        yield start
    finally:
        for cloud in started:
            cloud.server.stop()
            remove_all(engine, cloud)


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[str]:
    """A Prefect server with a database of its own: its API's address, for processes that a test starts."""
    # Prefect takes two seconds to import, and most tests do without.
    from prefect.settings import PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings
    from prefect.testing.utilities import prefect_test_harness

    # Without its heartbeat thread a flow ends a second earlier.
    with prefect_test_harness(server_startup_timeout=120), temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield str(PREFECT_API_URL.value())


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a headless-capable Chromium."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.fail("there is no Chromium: `make test` installs it", pytrace=False)
    return found
