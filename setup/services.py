"""The services of one clone: registry, local cloud, Prefect server, work pool, deployments, worker; the sample that they release."""

import hashlib
import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from setup import engine
from setup.clone import HOST, PORTS, Clone, exported, kept_ports, read_env
from setup.process import Service, ensure, running, stop
from setup.steps import Step, say
from setup.tools import run_logged, venv_key
from setup.trouble import Trouble

POOL = "relais"
# Releases of several services at a time, the watch beside them; more would starve two cores.
POOL_LIMIT = 8
# Its runs have that long to put the traffic back.
_PATIENCE = {"worker": 30.0}
_ORDER = ("worker", "prefect-server", "local-cloud", "registry")


def steps(clone: Clone) -> list[Step]:
    """What `make up` brings up once the machine is ready."""
    return [
        Step("registry", lambda: _up(clone, registry(clone)), after=("packages",)),
        Step("local cloud", lambda: _up(clone, local_cloud(clone)), after=("venv", "engine", "registry")),
        Step("sample", lambda: _sample(clone), after=("venv", "base image", "local cloud")),
        Step("prefect server", lambda: _up(clone, prefect_server(clone)), after=("venv",)),
        Step("work pool", lambda: _pool(clone), after=("prefect server",)),
        Step("worker", lambda: _up(clone, worker(clone)), after=("work pool",)),
        Step("deployments", lambda: _deployments(clone), after=("work pool",)),
    ]


def in_use(clone: Clone) -> set[str]:
    """The settings whose ports are held by this clone's own running services."""
    owner = {
        "REGISTRY_PORT": "registry",
        "IMAGES_PORT": "local-cloud",
        "CLOUD_PORT": "local-cloud",
        "CLOUD_ADMIN_PORT": "local-cloud",
        "PREFECT_PORT": "prefect-server",
    }
    return {name for name in PORTS if running(_record(clone, owner[name]))}


def down(clone: Clone) -> list[str]:
    """End what this clone started, runs first so that they can still put the traffic back; what was ended."""
    ended = [name for name in _ORDER if stop(_record(clone, name), _PATIENCE.get(name, 15), children_first=name == "worker")]
    if not engine.silence():
        count = engine.remove_containers(f"relais.clone={clone.id}")
        if count:
            ended.append(f"{count} container{'s' if count > 1 else ''}")
    return ended


def registry_config(port: int, folder: Path) -> str:
    """The registry's configuration, as JSON (which is YAML): loopback only, deletable, nothing but files below one folder."""
    return json.dumps({
        "version": 0.1,
        "log": {"level": "warn", "accesslog": {"disabled": True}},
        "storage": {"filesystem": {"rootdirectory": str(folder)}, "delete": {"enabled": True}},
        "http": {"addr": f"{HOST}:{port}"},
    })


def registry(clone: Clone) -> Service:
    """CNCF distribution's registry, for this clone alone."""
    port = kept_ports(read_env(clone))["REGISTRY_PORT"]
    folder = clone.home / "registry"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "config.yml"
    config.write_text(registry_config(port, folder / "data"))
    return Service(
        name="registry",
        command=["docker-registry", "serve", str(config)],
        log=clone.log("registry"),
        record=_record(clone, "registry"),
        healthy=lambda: _get(f"http://{HOST}:{port}/v2/") is not None,
        key=str(port),
        ready_within=20,
    )


def local_cloud(clone: Clone) -> Service:
    """The embedded Google Cloud; its state survives a restart, so new code of it is taken up at once."""
    env = read_env(clone)
    port, admin = kept_ports(env)["CLOUD_PORT"], kept_ports(env)["CLOUD_ADMIN_PORT"]
    state = clone.home / "cloud"
    state.mkdir(parents=True, exist_ok=True)
    arguments = ["--port", str(port), "--state", str(state), "--registry", env["RELAIS_REGISTRY"], "--clone", clone.id]
    arguments += ["--admin-port", str(admin), "--registry-port", str(kept_ports(env)["IMAGES_PORT"])]
    return Service(
        name="local cloud",
        command=[str(clone.python), "-m", "localcloud", *arguments],
        log=clone.log("local-cloud"),
        record=_record(clone, "local-cloud"),
        healthy=lambda: _listens(port),
        key=_digest(clone, ["localcloud/**/*.py", "localcloud/**/*.j2"], *arguments),
        ready_within=30,
    )


def prefect_server(clone: Clone) -> Service:
    """Prefect's server and its UI, on SQLite in this clone."""
    env = read_env(clone)
    return Service(
        name="prefect server",
        command=[str(clone.python), "-m", "prefect", "server", "start"],
        log=clone.log("prefect-server"),
        record=_record(clone, "prefect-server"),
        healthy=lambda: _get(env["PREFECT_API_URL"] + "/health") is not None,
        key=_digest(clone, [], *_settings(env, "PREFECT_")),
        ready_within=150,
    )


def worker(clone: Clone) -> Service:
    """The process that starts runs; one for the whole clone."""
    name = f"relais-{clone.id}"
    url = read_env(clone)["PREFECT_API_URL"]
    return Service(
        name="worker",
        command=[str(clone.python), "-m", "prefect", "worker", "start", "--pool", POOL, "--type", "process", "--name", name],
        log=clone.log("worker"),
        record=_record(clone, "worker"),
        healthy=lambda: _online(url, name, since=_record(clone, "worker").stat().st_mtime),
        key=_digest(clone, [], *_settings(read_env(clone))),
        ready_within=60,
        ends_within=_PATIENCE["worker"],
        children_first=True,
    )


def _settings(env: Mapping[str, str], prefix: str = "") -> list[str]:
    return sorted(f"{key}={value}" for key, value in env.items() if key.startswith(prefix))


def _record(clone: Clone, name: str) -> Path:
    return clone.home / "run" / f"{name}.json"


def _digest(clone: Clone, patterns: list[str], *more: str) -> str:
    """What a running service was made from: the virtual environment, sources, arguments."""
    files = sorted(path for pattern in patterns for path in clone.root.glob(pattern))
    parts = [venv_key(clone).encode(), *(path.read_bytes() for path in files), *(text.encode() for text in more)]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _up(clone: Clone, service: Service) -> bool:
    return ensure(service, exported(clone), clone.root, lambda line: say(f"  {line}"))


def _sample(clone: Clone) -> bool:
    """The sample's repository, and the revision that serves before its first release; what is there already is left as it is."""
    new = not clone.sample.exists()
    clone.sample.parent.mkdir(parents=True, exist_ok=True)
    log, script = clone.log("sample"), str(clone.root / "examples" / "emergence" / "lay_out.py")
    for command in ("repo", "baseline"):
        if run_logged([str(clone.python), script, command, str(clone.sample)], log, within=300, env=exported(clone), cwd=clone.root):
            raise Trouble(f"the sample's {command} could not be made.", log=log)
    return new


def _pool(clone: Clone) -> bool:
    known = _known_pool(clone)
    if known is not None and known.get("concurrency_limit") == POOL_LIMIT:
        return False
    if known is None:
        _prefect_command(clone, "work-pool", ["work-pool", "create", POOL, "--type", "process"])
    _prefect_command(clone, "work-pool", ["work-pool", "set-concurrency-limit", POOL, str(POOL_LIMIT)])
    return True


def _known_pool(clone: Clone) -> dict[str, Any] | None:
    """The pool; None when the server says that there is none, which is not the same as no answer (its database is locked now and then)."""
    url = read_env(clone)["PREFECT_API_URL"]
    for _ in range(20):
        try:
            with _OPENER.open(f"{url}/work_pools/{POOL}", timeout=5) as answer:
                known: dict[str, Any] = json.loads(answer.read())
                return known
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
        except (OSError, ValueError, http.client.HTTPException):
            pass
        time.sleep(0.5)
    raise Trouble("the Prefect server does not say which work pools there are.", log=clone.log("prefect-server"))


def _deployments(clone: Clone) -> bool:
    if not (clone.root / "prefect.yaml").exists():
        say("  there is no prefect.yaml: no deployments")
        return False
    # The forms come from the flows and from the models of their parameters.
    key = _digest(clone, ["prefect.yaml", "flows/*.py", "tasks/*.py", "relais/**/*.py"], *_settings(read_env(clone)))
    stamp = clone.home / "prefect" / "deployed"
    if stamp.exists() and stamp.read_text() == key:
        return False
    _prefect_command(clone, "deployments", ["--no-prompt", "deploy", "--all"])
    stamp.write_text(key)
    return True


def _prefect_command(clone: Clone, log_name: str, arguments: list[str]) -> None:
    log = clone.log(log_name)
    if run_logged([str(clone.python), "-m", "prefect", *arguments], log, within=120, env=exported(clone), cwd=clone.root):
        raise Trouble(f"`prefect {' '.join(arguments)}` failed.", log=log)


_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))


def _get(url: str) -> dict[str, Any] | None:
    """The answer of a service on loopback; None when there is none."""
    return _ask(urllib.request.Request(url))


def _ask(request: urllib.request.Request) -> dict[str, Any] | None:
    try:
        with _OPENER.open(request, timeout=5) as answer:
            said = json.loads(answer.read() or b"{}")
    except (OSError, ValueError, http.client.HTTPException, urllib.error.URLError):
        return None
    return said if isinstance(said, dict) else {"answer": said}


def _online(url: str, name: str, *, since: float) -> bool:
    """Whether the server has heard of this worker since it was started; the one before may still count as alive."""
    workers = f"{url}/work_pools/{POOL}/workers/filter"
    asked = urllib.request.Request(workers, data=b"{}", headers={"Content-Type": "application/json"}, method="POST")
    found = (_ask(asked) or {}).get("answer", [])
    heard = [datetime.fromisoformat(one["last_heartbeat_time"]).timestamp() for one in found if one.get("name") == name]
    return any(moment >= since for moment in heard)


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=2).close()
    except OSError:
        return False
    return True
