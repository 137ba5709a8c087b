"""The whole local cloud in one process: one gRPC port for the APIs, one loopback port for each service and tag."""

import asyncio
import errno
import fcntl
import gc
import logging
import os
import resource
import signal
from collections.abc import Awaitable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import grpc
from google.cloud import artifactregistry_v1, monitoring_v3, run_v2, secretmanager_v1
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client

from localcloud import snapshot, wire
from localcloud.admin.control import AS_REAL, LENIENT, Control
from localcloud.admin.denials import Denials
from localcloud.admin.endpoint import Admin
from localcloud.admin.faults import Faults
from localcloud.admin.mishaps import Mishaps
from localcloud.admin.quotas import Quotas
from localcloud.admin.stale import Before
from localcloud.admin.status import Status
from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.registryfront import CannotListen, RegistryFront
from localcloud.artifacts.service import Artifacts
from localcloud.instances.engine import Engine
from localcloud.instances.fleet import Fleet
from localcloud.instances.output import Output
from localcloud.instances.pods import Pods
from localcloud.logs.logstore import LogStore
from localcloud.logs.service import Logging
from localcloud.monitoring.metrics import Metrics
from localcloud.monitoring.service import Monitoring
from localcloud.operations import Operations
from localcloud.run.jobs import Jobs
from localcloud.run.reconcile import Reconciler
from localcloud.run.services import Revisions, Services
from localcloud.secrets.secretmanager import Secrets
from localcloud.secrets.secretstore import SecretStore
from localcloud.state import State
from localcloud.traffic.identity import Identity
from localcloud.traffic.proxy import Proxy

log = logging.getLogger(__name__)
LOG_MEGABYTES = 256
_STEP_S, _REMOVAL_S = 10.0, 60.0  # how long each part may take to end, and the removal of all containers


class CannotServe(Exception):
    """The local cloud cannot start: a sentence that says why, and what to do."""


@dataclass(frozen=True)
class Settings:
    """How one local cloud is run."""

    host: str
    port: int
    admin_port: int
    state: Path
    registry: str
    registry_port: int  # 0: the one it always had, else a free one
    log_megabytes: int
    clone: str
    startup_seconds: float
    idle_seconds: float
    pending_seconds: float
    max_containers: int
    down_removes: bool
    strict: bool
    published_ports: bool


@dataclass(frozen=True)
class _Parts:
    """What one local cloud is made of."""

    state: State
    store: LogStore
    secrets: SecretStore
    metrics: Metrics
    engine: Engine
    fleet: Fleet
    proxy: Proxy
    reconciler: Reconciler
    operations: Operations
    jobs: Jobs
    front: RegistryFront
    artifacts: Artifacts
    faults: Faults
    denials: Denials
    quotas: Quotas
    admin: Admin


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT."""
    _enough_files()
    lock = only_one(settings.state)
    _warn_of_old_secrets(settings.state)
    parts = _parts(settings)
    server = _apis(parts)
    _bind(server, settings)
    parts.admin.bind(settings.admin_port)
    await parts.front.open()
    await parts.proxy.open()
    await parts.reconciler.restore()
    parts.fleet.watch(parts.reconciler.blueprint)
    parts.operations.resume(lambda line: parts.artifacts.again(line) or parts.jobs.again(line))
    parts.metrics.watch(parts.fleet.census, parts.engine.usage)
    await server.start()
    address = await parts.admin.open(settings.state / "admin")
    _settle_memory()
    _tell(settings, address)
    await _told_to_stop()
    await _end(parts.admin.close(), server.stop(grace=1), parts.operations.close(), parts.reconciler.close())
    await _end(parts.proxy.close(), parts.metrics.close(), parts.fleet.close())
    if settings.down_removes:
        await _end(remove_containers(parts.engine), seconds=_REMOVAL_S)
    await _end(parts.front.close(), parts.artifacts.close())
    parts.engine.close()
    parts.store.close()
    parts.state.close()
    os.close(lock)


def _parts(settings: Settings) -> _Parts:
    """Make the parts and tell them of each other; none of them serves yet."""
    state, store = _opened(settings.state, settings.log_megabytes)
    secrets = SecretStore(state)
    metrics = Metrics(state)
    engine = Engine(settings.clone, published=settings.published_ports)
    output = Output(engine, state, store)
    pods = Pods(engine, output, state, store, secrets, startup_s=settings.startup_seconds, started=metrics.startup)
    fleet = Fleet(pods, idle_s=settings.idle_seconds, pending_s=settings.pending_seconds, most_containers=settings.max_containers)
    identity = Identity(state.connection)
    proxy = Proxy(settings.host, settings.clone, state, fleet, store, identity, metrics)
    reconciler = Reconciler(state, engine, fleet, proxy)
    operations = Operations(state)
    jobs = Jobs(operations, reconciler)
    catalog = Catalog(settings.registry, state)
    front = _front(settings, state, catalog)
    engine.credentials, engine.readable = front.credentials, front.readable
    artifacts = Artifacts(catalog, operations)
    faults, denials, quotas = Faults(Before(state)), Denials(identity), Quotas()
    admin = Admin("127.0.0.1", state, faults)
    admin.add("POST", "/import", snapshot.route(state, store, reconciler.take_up))
    start = replace(AS_REAL if settings.strict else LENIENT, startup_seconds=settings.startup_seconds)
    mishaps = Mishaps(faults, state, store, engine, front)
    control = Control(admin, mishaps, denials, quotas, identity, front, metrics, store, pods, start)
    Status(admin, state, store, engine, fleet, faults, denials, control)
    operations.fate, proxy.arrived, secrets.permits = faults.fate, mishaps.arrived, denials.holds
    return _Parts(
        state, store, secrets, metrics, engine, fleet, proxy, reconciler, operations, jobs, front, artifacts, faults, denials, quotas, admin
    )


def _apis(parts: _Parts) -> grpc.aio.Server:
    """Put the APIs up on a server, behind the gates."""
    state, jobs, reconciler = parts.state, parts.jobs, parts.reconciler
    gate = wire.gates(parts.faults.gate, parts.quotas.gate, parts.denials.gate)
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))  # a second server must not share the port
    services = Services(state, parts.engine, jobs, reconciler, parts.denials)
    server.add_generic_rpc_handlers(
        (
            wire.service("google.cloud.run_v2", run_v2.ServicesClient, services, gate),
            wire.service("google.cloud.run_v2", run_v2.RevisionsClient, Revisions(state, jobs, reconciler), gate),
            wire.service("google.cloud.artifactregistry_v1", artifactregistry_v1.ArtifactRegistryClient, parts.artifacts, gate),
            wire.service("google.cloud.logging_v2", LoggingServiceV2Client, Logging(parts.store), gate),
            wire.service("google.cloud.secretmanager_v1", secretmanager_v1.SecretManagerServiceClient, Secrets(parts.secrets), gate),
            wire.service("google.cloud.monitoring_v3", monitoring_v3.MetricServiceClient, Monitoring(parts.metrics), gate),
            wire.operations(parts.operations, gate),
        )
    )
    return server


def _warn_of_old_secrets(state: Path) -> None:
    folder = state / "secrets"
    if folder.is_dir() and any(folder.iterdir()):
        log.warning("the files in %s are not read any more: create the secrets by Secret Manager, and remove the folder", folder)


async def _end(*steps: Awaitable[object], seconds: float = _STEP_S) -> None:
    """Do this in its order; what takes too long or fails does not hold up the rest."""
    for step in steps:
        try:
            await asyncio.wait_for(step, seconds)
        except TimeoutError:
            log.warning("%s took longer than %.0f s: it is left", getattr(step, "__qualname__", step), seconds)
        except Exception:
            log.exception("%s failed", getattr(step, "__qualname__", step))


@contextmanager
def offline(folder: Path) -> Iterator[tuple[State, LogStore]]:
    """A state that no local cloud uses meanwhile, and its log."""
    lock = only_one(folder)
    try:
        state, store = _opened(folder, LOG_MEGABYTES)
        with closing(state), closing(store):
            yield state, store
    finally:
        os.close(lock)


def _opened(folder: Path, log_megabytes: int) -> tuple[State, LogStore]:
    state = State(folder / "cloud.sqlite")
    store = LogStore(folder / "logs.sqlite", max_bytes=log_megabytes * 2**20)
    snapshot.finish(state, store)
    return state, store


def _tell(settings: Settings, admin: str) -> None:
    print(f"localcloud serves on {settings.host}:{settings.port} (clone {settings.clone}, state {settings.state})", flush=True)
    print(f"its status page and admin endpoint: http://{admin}/", flush=True)


async def remove_containers(engine: Engine) -> int:
    """Remove every container and volume of the clone, and say how many containers there were."""
    return await engine.remove_all()


def _front(settings: Settings, state: State, catalog: Catalog) -> RegistryFront:
    catalog.take_over(settings.state / "artifacts.sqlite")
    try:
        front = RegistryFront(settings.host, state, catalog, port=settings.registry_port)
    except CannotListen as error:
        raise CannotServe(str(error)) from None
    catalog.host = front.address
    return front


def _settle_memory() -> None:
    gc.collect()
    gc.freeze()  # what is there now stays: it need not be looked through again and again while requests pass
    gc.set_threshold(20_000)


def _enough_files() -> None:
    """Have as many files open as the system allows: every service and tag has a socket of its own."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _bind(server: grpc.aio.Server, settings: Settings) -> None:
    where = f"{settings.host}:{settings.port}"
    try:
        bound = server.add_insecure_port(where)
    except RuntimeError:
        bound = 0
    if bound != settings.port:
        raise CannotServe(f"Port {settings.port} on {settings.host} is in use: choose another with --port, or end what listens there.")


def only_one(folder: Path) -> int:
    """Hold the state's lock: two processes on one state would undo each other's work."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        if error.errno in (errno.EAGAIN, errno.EACCES):
            raise CannotServe(f"Another localcloud uses the state {folder}: end it first, or choose another with --state.") from None
        raise
    return lock


async def _told_to_stop() -> None:
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, told.set)
    await told.wait()
