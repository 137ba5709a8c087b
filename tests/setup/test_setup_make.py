"""The commands as a newcomer types them, in clones of their own, with real services."""

import json
import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import docker
import pytest

from setup import tools
from setup.clone import Clone, here, kept_ports, read_env
from setup.engine import remove_images
from setup.process import running

SERVICES = ("registry", "local-cloud", "prefect-server", "worker")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", ".relais", "__pycache__", ".*_cache", "*.egg-info", "node_modules")


def make(clone: Clone, *arguments: str, within: float = 240) -> subprocess.CompletedProcess[str]:
    """One make command, as typed in a clone; what it prints comes back."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RELAIS_", "MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=clone.root, env=env, text=True, capture_output=True, timeout=within, check=False)


@pytest.fixture(scope="module")
def new_clone(tmp_path_factory: pytest.TempPathFactory, base_image: str) -> Iterator[Callable[[], Clone]]:  # noqa: ARG001
    """Makes a copy of this tree that shares its virtual environment; all of them are brought down at the end."""
    ready = here()
    stamp = ready.venv / ".relais-key"
    if not stamp.exists() or stamp.read_text() != tools.venv_key(ready):
        pytest.fail("the virtual environment is not what the lock says: `make test` sets it up first", pytrace=False)
    made: list[Clone] = []

    def copy() -> Clone:
        root = tmp_path_factory.mktemp("clone") / "relais"
        shutil.copytree(ready.root, root, ignore=NOT_COPIED)
        (root / ".venv").symlink_to(ready.venv)
        made.append(Clone(root))
        return made[-1]

    try:
        yield copy
    finally:
        for clone in made:
            make(clone, "down")
            remove_images(f"relais.clone={clone.id}")
            shutil.rmtree(clone.home, ignore_errors=True)


@pytest.fixture(scope="module")
def clone(new_clone: Callable[[], Clone]) -> Clone:
    """A clone that was brought up."""
    one = new_clone()
    done = make(one, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    return one


def pids(clone: Clone) -> dict[str, str]:
    return {name: running(clone.home / "run" / f"{name}.json").get("pid", "") for name in SERVICES}


def ask(url: str, body: bytes | None = None) -> object:
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        return json.loads(answer.read() or b"null")


def test_after_make_up_every_service_answers(clone: Clone) -> None:
    env = read_env(clone)
    assert all(pids(clone).values())
    assert ask(env["PREFECT_API_URL"] + "/health") is True
    assert ask(f"http://{env['RELAIS_REGISTRY']}/v2/") == {}
    workers = ask(env["PREFECT_API_URL"] + "/work_pools/relais/workers/filter", b"{}")
    assert isinstance(workers, list)
    assert [(one["name"], one["status"]) for one in workers] == [(f"relais-{clone.id}", "ONLINE")]


def test_a_second_make_up_takes_seconds_and_touches_nothing(clone: Clone) -> None:
    before, began = pids(clone), time.monotonic()
    done = make(clone, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 6
    assert pids(clone) == before
    assert " did " not in done.stdout


@pytest.mark.parametrize("victim", ["worker", "registry"])
def test_make_up_restarts_only_what_died(clone: Clone, victim: str) -> None:
    before = pids(clone)
    os.kill(int(before[victim]), signal.SIGKILL)
    done = make(clone, "up")
    assert done.returncode == 0, done.stdout + done.stderr
    after = pids(clone)
    assert after[victim] not in ("", before[victim])
    assert {name: pid for name, pid in after.items() if name != victim} == {name: pid for name, pid in before.items() if name != victim}


def test_commands_see_the_environment_of_their_clone(clone: Clone) -> None:
    done = subprocess.run(
        ["python3", "-m", "setup", "run", "--", "python", "-c", "import os, sys; print(os.environ['RELAIS_CLONE'], sys.prefix)"],
        cwd=clone.root,
        text=True,
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert done.stdout.split() == [clone.id, str(clone.venv)]


def test_two_clones_do_not_disturb_one_another(
    clone: Clone, new_clone: Callable[[], Clone], engine: docker.DockerClient, base_image: str
) -> None:
    other = new_clone()
    ours = engine.containers.run(base_image, ["sleep", "300"], detach=True, labels={"relais.clone": clone.id})
    theirs = engine.containers.run(base_image, ["sleep", "300"], detach=True, labels={"relais.clone": other.id})
    try:
        done = make(other, "up")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not set(kept_ports(read_env(clone)).values()) & set(kept_ports(read_env(other)).values())
        before = pids(clone)
        done = make(other, "down")
        assert done.returncode == 0, done.stdout + done.stderr
        assert not any(pids(other).values())
        assert pids(clone) == before
        left = {container.id for container in engine.containers.list(all=True, ignore_removed=True)}
        assert ours.id in left
        assert theirs.id not in left
    finally:
        ours.remove(force=True)
        for container in engine.containers.list(all=True, filters={"id": str(theirs.id)}):
            container.remove(force=True)


def test_make_down_ends_all_and_is_content_with_nothing(clone: Clone, engine: docker.DockerClient) -> None:
    before = [int(pid) for pid in pids(clone).values()]
    done = make(clone, "down")
    assert done.returncode == 0, done.stdout + done.stderr
    assert not any(Path(f"/proc/{pid}/cwd").exists() for pid in before)
    assert engine.ping()
    again = make(clone, "down")
    assert again.returncode == 0
    assert "nothing was running" in again.stdout


def test_a_port_that_is_taken_is_an_exit_code_and_a_sentence(clone: Clone, registry: str) -> None:
    port = registry.rpartition(":")[2]
    done = make(clone, "up", f"CLOUD_PORT={port}")
    assert done.returncode != 0
    assert f"CLOUD_PORT={port}: another program listens there." in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


def test_make_help_lists_the_commands(clone: Clone) -> None:
    shown = make(clone, "help").stdout
    assert all(f"make {target}" in shown for target in ("up", "down", "demo", "test", "check", "lock", "clean"))
