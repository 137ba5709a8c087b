"""What a machine needs once: the virtual environment, the programs of the distribution, a Docker Engine, the sample's base image."""

import ctypes
import hashlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

from setup import base, engine
from setup.clone import Clone
from setup.process import born
from setup.steps import Step, say
from setup.trouble import Trouble

_PIP_WITHIN = 900
_APT_WITHIN = 900
_ENGINE_WITHIN = 60
_NEEDED_BYTES = 3_000_000_000
_CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
_NPM_WITHIN = 300
_PLAYWRIGHT_NEEDS = "libatomic.so.1"  # its wheel brings everything else that its node needs


def venv_step(clone: Clone) -> Step:
    """The virtual environment as requirements.lock says; the project itself editable in it."""
    return Step("venv", lambda: _venv(clone), after=("packages",) if _venv_lacks_pip() else ())


def machine_steps(clone: Clone, *, chromium: bool) -> list[Step]:
    """The steps that make the machine ready, the virtual environment among them."""
    return [
        Step("packages", lambda: _packages(clone, chromium=chromium)),
        venv_step(clone),
        Step("engine", _engine, after=("packages",)),
        Step("base image", lambda: base.ensure(clone, lambda: _install(clone, ["mmdebstrap"])), after=("engine",)),
    ]


def node_client_step(clone: Clone) -> Step:
    """Google's Node client, as tests/node/package-lock.json says: a program that nobody here wrote, for the tests."""
    return Step("node client", lambda: _node_client(clone), after=("packages",))


def venv_key(clone: Clone) -> str:
    """What the virtual environment is made from."""
    lock = (clone.root / "requirements.lock").read_bytes()
    asked = tomllib.loads((clone.root / "pyproject.toml").read_text())
    installed = json.dumps([asked.get("build-system"), asked.get("project"), asked.get("tool", {}).get("setuptools")])
    return hashlib.sha256(b"\0".join([lock, installed.encode(), sys.version.encode()])).hexdigest()


def run_logged(command: Sequence[str], log: Path, *, within: float, env: Mapping[str, str] | None = None, cwd: Path | None = None) -> int:
    """Run a command with its output in a log and a time limit; gives the exit code."""
    with log.open("a") as out:
        out.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(command)}\n")
        out.flush()
        try:
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out, timeout=within, env=env, cwd=cwd, check=False)
        except subprocess.TimeoutExpired as late:
            raise Trouble(f"`{' '.join(command[:3])} …` did not end within {within:.0f} s.", log=log) from late
        except OSError as error:
            raise Trouble(f"`{command[0]}` cannot be run: {error.strerror}.", log=log) from error
    return done.returncode


def room(clone: Clone) -> None:
    """Say it before a download does when the disk is nearly full."""
    left = shutil.disk_usage(clone.root).free
    if left < _NEEDED_BYTES:
        raise Trouble(
            f"{left / 1e9:.1f} GB are left on the disk of {clone.root}; set-up and a first release take {_NEEDED_BYTES / 1e9:.0f} GB.",
            remedy="Free some disk (`df -h .` shows how much is left), then again.",
        )


# The virtual environment


def _venv_lacks_pip() -> bool:
    """Debian's python3 comes without what `python3 -m venv` needs."""
    importlib.invalidate_caches()
    return importlib.util.find_spec("ensurepip") is None


def _venv(clone: Clone) -> bool:
    stamp, key = clone.venv / ".relais-key", venv_key(clone)
    with_python = _works(clone.python)
    if with_python and stamp.exists() and stamp.read_text() == key:
        return False
    room(clone)
    log = clone.log("venv")
    if not with_python and _venv_lacks_pip():
        _install(clone, ["python3-venv"])
    if not with_python and run_logged([sys.executable, "-m", "venv", "--clear", str(clone.venv)], log, within=120):
        raise Trouble("the virtual environment could not be made.", log=log)
    pip = [str(clone.python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", "--progress-bar=off", "--retries=3"]
    _pip(clone, [*pip, "--require-hashes", "-r", "requirements.lock"])
    _pip(clone, [*pip, "--no-deps", "--no-build-isolation", "-e", "."])
    stamp.write_text(key)
    return True


def _works(python: Path) -> bool:
    """Whether this interpreter starts; the one that it was made from may have gone."""
    return python.exists() and subprocess.run([python, "-c", ""], timeout=30, check=False, capture_output=True).returncode == 0


def _pip(clone: Clone, command: list[str]) -> None:
    log = clone.log("venv")
    if run_logged(command, log, within=_PIP_WITHIN, cwd=clone.root):
        raise Trouble(f"`pip {' '.join(command[-2:])}` failed.", log=log)


# The Node client of the tests


def node_modules(clone: Clone) -> Path:
    """Where npm puts it."""
    return clone.root / "tests" / "node" / "node_modules"


def _node_client(clone: Clone) -> bool:
    modules = node_modules(clone)
    folder, stamp = modules.parent, modules / ".relais-key"
    key = hashlib.sha256((folder / "package-lock.json").read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == key:
        return False
    log = clone.log("node-client")
    if run_logged(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], log, within=_NPM_WITHIN, cwd=folder):
        raise Trouble("`npm ci` in tests/node failed.", log=log)
    stamp.write_text(key)
    return True


# The distribution's programs


def _missing(*, chromium: bool) -> list[str]:
    """The packages that are missing, by the names that Debian and Ubuntu give them."""
    wanted = []
    if _venv_lacks_pip():
        wanted.append("python3-venv")
    if engine.silence():
        if not shutil.which("dockerd"):
            wanted += ["docker.io", "ca-certificates"]
        if not Path("/run/systemd/system").exists() and not _cgroups():
            wanted += [package for package in ("cgroupfs-mount", "mount") if not shutil.which(package)]
        # No Engine to ask whether the base image can be pulled: what builds it comes with the same call.
        if not shutil.which("mmdebstrap"):
            wanted.append("mmdebstrap")
    if not shutil.which("docker-registry"):
        wanted.append("docker-registry")
    wanted += [package for program, package in (("node", "nodejs"), ("npm", "npm")) if not shutil.which(program)]
    if chromium and not any(map(shutil.which, _CHROMIUM)):
        wanted.append("chromium")
    if chromium and not _loads(_PLAYWRIGHT_NEEDS):
        wanted.append("libatomic1")
    return wanted


def _loads(library: str) -> bool:
    """Whether the system's loader finds a library."""
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True


def _packages(clone: Clone, *, chromium: bool) -> bool:
    missing = _missing(chromium=chromium)
    if missing:
        _install(clone, missing)
    return bool(missing)


def _install(clone: Clone, packages: list[str]) -> None:
    """One apt-get for all; the lists of packages are fetched only where there are none, or where they are too old to serve."""
    packages = [name for name in packages if name != "mmdebstrap" or not shutil.which("mmdebstrap")]
    if not packages:
        return
    _may_install(packages)
    room(clone)
    say(f"  installing {' '.join(packages)}")
    log = clone.log("packages")
    quick = ["-y", "-o", "DPkg::Lock::Timeout=180", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"]
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_MODE": "l", "LC_ALL": "C.UTF-8"}
    install = ["apt-get", *quick, "install", "--no-install-recommends", *packages]
    update = ["apt-get", *quick, "update"]
    lists = any(Path("/var/lib/apt/lists").glob("*_Packages*"))
    done = lists and run_logged(install, log, within=_APT_WITHIN, env=env) == 0
    if not done:
        run_logged(update, log, within=_APT_WITHIN, env=env)
        if run_logged(install, log, within=_APT_WITHIN, env=env):
            raise Trouble(f"apt-get could not install {' '.join(packages)}.", log=log)
    if "docker-registry" in packages and Path("/run/systemd/system").exists():
        # The package starts a registry of its own on every address, which nobody here asked for.
        run_logged(["systemctl", "disable", "--now", "docker-registry"], log, within=60)


def _may_install(packages: list[str]) -> None:
    names = " ".join(packages)
    if not shutil.which("apt-get"):
        raise Trouble(
            f"missing on this machine: {names} (Debian's names), and there is no apt-get to install them.",
            remedy="Install them with this system's own package manager (a Docker Engine, CNCF distribution's registry as "
            "`docker-registry`, node and npm, Chromium), then again.",
        )
    if os.geteuid() != 0:
        raise Trouble(f"missing on this machine: {names}; only root may install them.", remedy=f"sudo apt-get install {names}, then again.")


# The Docker Engine


def _engine() -> bool:
    why = engine.silence()
    if not why:
        return False
    local = engine.address().startswith("unix://")
    if not local or os.geteuid() != 0 or not shutil.which("dockerd"):
        raise Trouble(f"no Docker Engine answers ({why}).", remedy=_engine_remedy(why, local=local))
    # The machine's own from now on: it outlives this command and this clone, and `make down` leaves it alone.
    log = Path("/var/log/relais-dockerd.log")
    if Path("/run/systemd/system").exists():
        run_logged(["systemctl", "start", "docker"], log, within=60)
        return _answers(log, None)
    _mount_cgroups(log)
    with log.open("ab") as out:
        daemon = subprocess.Popen(["dockerd"], stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True, cwd="/")
    return _answers(log, daemon.pid)


def _answers(log: Path, pid: int | None) -> bool:
    until = time.monotonic() + _ENGINE_WITHIN
    while engine.silence():
        if pid is not None and not born(pid):
            if engine.silence():
                raise Trouble("dockerd ended right after its start.", log=log)
            break
        if time.monotonic() > until:
            raise Trouble(f"the Docker Engine does not answer {_ENGINE_WITHIN} s after its start.", log=log)
        time.sleep(0.2)
    return True


def _mount_cgroups(log: Path) -> None:
    """What an init system does at boot; a machine without one may not have it."""
    for command in (["cgroupfs-mount"], ["mount", "-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]):
        if not _cgroups() and shutil.which(command[0]):
            run_logged(command, log, within=30)
    if not _cgroups():
        raise Trouble(
            "the kernel's cgroups are not mounted on /sys/fs/cgroup, and cannot be.",
            remedy="Where this is itself a container, start it privileged, or give it the Engine of its host (/var/run/docker.sock).",
            log=log,
        )


def _cgroups() -> bool:
    """Whether the kernel's resource groups are mounted, in either version; without them no container starts."""
    return any(Path("/sys/fs/cgroup", name).exists() for name in ("cgroup.controllers", "memory"))


def _engine_remedy(why: str, *, local: bool) -> str:
    if not local:
        return "Start the Engine that DOCKER_HOST names, or unset DOCKER_HOST to use this machine's."
    if "may not use it" in why:
        return "Add this user to the group `docker` (sudo usermod -aG docker $USER, then log in again), or run as root."
    if shutil.which("dockerd"):
        return "Start it as root (sudo systemctl start docker, or sudo dockerd), then again."
    return "Install a Docker Engine (Debian, Ubuntu: sudo apt-get install docker.io; elsewhere Docker Desktop) and start it, then again."
