"""One clone of the repository: its paths, its id, its ports and the environment of all its commands."""

import contextlib
import fcntl
import hashlib
import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from setup.trouble import Trouble

HOST = "127.0.0.1"
# The name of the setting, the first port to try.
PORTS = {"REGISTRY_PORT": 5000, "IMAGES_PORT": 5500, "CLOUD_PORT": 8800, "CLOUD_ADMIN_PORT": 8900, "PREFECT_PORT": 4200}


@dataclass(frozen=True)
class Clone:
    """Where this clone lives; everything that it writes is in `.relais` and `.venv`."""

    root: Path

    @property
    def id(self) -> str:
        """Six hex digits of the path: on containers and images, so that two clones never touch each other's."""
        return hashlib.sha256(str(self.root).encode()).hexdigest()[:6]

    @property
    def home(self) -> Path:
        return self.root / ".relais"

    @property
    def venv(self) -> Path:
        return self.root / ".venv"

    @property
    def python(self) -> Path:
        return self.venv / "bin" / "python"

    @property
    def sample(self) -> Path:
        """The repository of the sample service's team; its remote stands beside it."""
        return self.home / "sample" / "emergence-app"

    @property
    def env_file(self) -> Path:
        return self.home / "env"

    def log(self, name: str) -> Path:
        """The log of one step or service."""
        (self.home / "logs").mkdir(parents=True, exist_ok=True)
        return self.home / "logs" / f"{name}.log"


def here() -> Clone:
    """The clone that this file belongs to."""
    return Clone(Path(__file__).resolve().parent.parent)


def read_env(clone: Clone) -> dict[str, str]:
    """What `.relais/env` says; empty before the first set-up."""
    try:
        lines = clone.env_file.read_text().splitlines()
    except FileNotFoundError:
        return {}
    return dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))


def environment(clone: Clone, ports: Mapping[str, int], base_image: str) -> dict[str, str]:
    """What every command of this clone needs to know."""
    return {
        "RELAIS_ROOT": str(clone.root),
        "RELAIS_HOME": str(clone.home),
        "RELAIS_SAMPLE": str(clone.sample),
        "RELAIS_CLONE": clone.id,
        "RELAIS_REGISTRY": f"localhost:{ports['REGISTRY_PORT']}",
        "RELAIS_IMAGES": f"localhost:{ports['IMAGES_PORT']}",  # Artifact Registry's own front, before that registry
        "RELAIS_BASE_IMAGE": base_image,
        "CLOUDRUN_EMULATOR_HOST": f"{HOST}:{ports['CLOUD_PORT']}",
        "RELAIS_CLOUD_ADMIN": f"{HOST}:{ports['CLOUD_ADMIN_PORT']}",
        "PREFECT_HOME": str(clone.home / "prefect"),
        "PREFECT_API_URL": f"http://{HOST}:{ports['PREFECT_PORT']}/api",
        "PREFECT_SERVER_API_HOST": HOST,
        "PREFECT_SERVER_API_PORT": str(ports["PREFECT_PORT"]),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "relais",
        # A run begins within seconds; a dead one is noticed by its missing heartbeat; the database of events stays small.
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
        "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P1D",
    }


def write_env(clone: Clone, values: Mapping[str, str]) -> None:
    """Replace `.relais/env` in one move, so that nobody reads half of it."""
    clone.home.mkdir(parents=True, exist_ok=True)
    fresh = clone.env_file.with_suffix(".new")
    fresh.write_text("".join(f"{key}={value}\n" for key, value in values.items()))
    fresh.replace(clone.env_file)


def exported(clone: Clone) -> dict[str, str]:
    """This process's environment with the clone's over it, and the clone's tools first on the path."""
    path = os.pathsep.join([str(clone.venv / "bin"), os.environ.get("PATH", os.defpath)])
    return {**os.environ, **read_env(clone), "PATH": path, "VIRTUAL_ENV": str(clone.venv), "PYTHONUNBUFFERED": "1"}


def kept_ports(env: Mapping[str, str]) -> dict[str, int]:
    """The ports that an earlier set-up chose."""
    said = {
        "REGISTRY_PORT": env.get("RELAIS_REGISTRY", "").rpartition(":")[2],
        "IMAGES_PORT": env.get("RELAIS_IMAGES", "").rpartition(":")[2],
        "CLOUD_PORT": env.get("CLOUDRUN_EMULATOR_HOST", "").rpartition(":")[2],
        "CLOUD_ADMIN_PORT": env.get("RELAIS_CLOUD_ADMIN", "").rpartition(":")[2],
        "PREFECT_PORT": env.get("PREFECT_SERVER_API_PORT", ""),
    }
    return {name: int(port) for name, port in said.items() if port.isdigit()}


def settle(clone: Clone, ours: set[str], asked: Mapping[str, str], base_image: str) -> list[str]:
    """Choose what is chosen once and write `.relais/env`; gives a sentence for each port that had to move.

    A port is what was asked for, else what was kept, else the next free one; `ours` names the ports that this clone's own services hold.
    """
    chosen: dict[str, int] = {}
    said: list[str] = []
    kept = kept_ports(read_env(clone))
    with _others(clone) as theirs:
        for name, first in PORTS.items():
            if asked.get(name):
                chosen[name] = _asked_port(name, asked[name], held=name in ours and kept.get(name) == _number(asked[name]))
            elif name in kept and (name in ours or free(kept[name])):
                chosen[name] = kept[name]
            else:
                taken = theirs | set(chosen.values())
                chosen[name] = next(port for port in range(kept.get(name, first), 65536) if port not in taken and free(port))
                if name in kept:
                    said.append(f"{name} {kept[name]} was taken by another program meanwhile: now {chosen[name]}.")
        write_env(clone, environment(clone, chosen, base_image))
    return said


def _number(text: str) -> int:
    return int(text) if text.isdigit() and 0 < int(text) < 65536 else 0


def _asked_port(name: str, text: str, *, held: bool) -> int:
    port = _number(text)
    if not port:
        raise Trouble(f"{name}={text} is not a port.", remedy=f"Give a number from 1024 to 65535, as in `make up {name}={PORTS[name]}`.")
    if not held and not free(port):
        raise Trouble(
            f"{name}={port}: another program listens there.",
            remedy=f"`ss -ltnp 'sport = :{port}'` names it; choose another port, or leave {name} out and a free one is taken.",
        )
    return port


def free(port: int) -> bool:
    """Whether nobody listens on this port, on loopback or on every address."""
    for address in (HOST, ""):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except (OSError, OverflowError):
                return False
    return True


@contextlib.contextmanager
def _others(clone: Clone) -> Iterator[set[int]]:
    """The ports that this user's other clones keep, under a lock: two set-ups at the same moment do not choose the same one."""
    folder = Path(tempfile.gettempdir()) / f"relais-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "clones.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        book = folder / "clones"
        roots = set(book.read_text().splitlines()) if book.exists() else set()
        known = {root: kept_ports(read_env(Clone(Path(root)))) for root in roots - {str(clone.root)}}
        yield {port for ports in known.values() for port in ports.values()}
        alive = [root for root, ports in known.items() if ports]
        book.write_text("".join(f"{root}\n" for root in sorted([*alive, str(clone.root)])))
