"""python3 -m setup up | down | tools | venv | clean | run -- COMMAND: what the Makefile calls."""

import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable

from setup import base, engine, services, tools
from setup.clone import PORTS, Clone, exported, here, read_env, settle
from setup.steps import run, say, told
from setup.trouble import Trouble


def up(clone: Clone) -> bool:
    """The machine ready, and everything of this clone running."""
    _settle(clone)
    ready = run([*tools.machine_steps(clone, chromium=False), *services.steps(clone)])
    if ready:
        env = read_env(clone)
        say(f"Prefect   {env['PREFECT_API_URL'].removesuffix('/api')}")
        say(f"status    http://{env['RELAIS_CLOUD_ADMIN']}/")
        say(f"cloud     {env['CLOUDRUN_EMULATOR_HOST']}   registry {env['RELAIS_REGISTRY']}   logs {clone.home / 'logs'}")
    return ready


def make_tools(clone: Clone) -> bool:
    """The machine ready for the tests, which start servers of their own."""
    _settle(clone)
    return run([*tools.machine_steps(clone, chromium=True), tools.node_client_step(clone)])


def make_venv(clone: Clone) -> bool:
    """The virtual environment alone; the distribution's packages only when Python itself cannot make one."""
    steps = [step for step in tools.machine_steps(clone, chromium=False) if step.name == "venv"]
    return run(steps)


def down(clone: Clone) -> bool:
    """End what this clone started; the Engine is the machine's and stays."""
    ended = services.down(clone)
    say(f"ended: {', '.join(ended)}" if ended else "nothing was running")
    return True


def clean(clone: Clone) -> bool:
    """End everything, then remove what this clone wrote: its images, .relais, .venv, the tests' node_modules."""
    registries = [read_env(clone).get(name, "") for name in ("RELAIS_IMAGES", "RELAIS_REGISTRY")]
    down(clone)
    if not engine.silence():
        for registry in filter(None, registries):
            engine.remove_tags(registry)
        engine.remove_images(f"relais.clone={clone.id}")
    for folder in (clone.home, clone.venv, tools.node_modules(clone)):
        shutil.rmtree(folder, ignore_errors=True)
    return True


def _settle(clone: Clone) -> None:
    """Choose what is chosen once, and write it down for every later command."""
    asked = {name: os.environ.get(name, "") for name in PORTS}
    for line in settle(clone, services.in_use(clone), asked, base.image_name()):
        say(f"  {line}")


def _run(clone: Clone, command: list[str]) -> bool:
    """Become the command, with this clone's environment."""
    env = exported(clone)
    try:
        os.execvpe(command[0], command, env)
    except OSError as error:
        raise Trouble(f"`{command[0]}` cannot be run: {error.strerror}.", remedy="`make up` first: it installs what is needed.") from error


_COMMANDS: dict[str, Callable[[Clone], bool]] = {"up": up, "down": down, "tools": make_tools, "venv": make_venv, "clean": clean}


def main(arguments: list[str]) -> int:
    """Do one command; 0 when all is so, 1 when something could not be done, 2 for a wrong command line."""
    # Started with & in a shell script, this process would ignore SIGINT, and so would every service that it starts.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    clone = here()
    if arguments[:2] == ["run", "--"] and len(arguments) > 2:
        return _guarded("run", lambda: _run(clone, arguments[2:]))
    if len(arguments) != 1 or arguments[0] not in _COMMANDS:
        print(__doc__, file=sys.stderr)
        return 2
    name = arguments[0]
    began = time.monotonic()
    code = _guarded(name, lambda: _alone(clone, name))
    say(f"{name}: {'done' if code == 0 else 'failed'} after {time.monotonic() - began:.1f} s")
    return code


def _alone(clone: Clone, name: str) -> bool:
    """One command at a time in one clone: a second one waits for the first."""
    clone.home.mkdir(parents=True, exist_ok=True)
    with (clone.home / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("  another set-up of this clone is at work: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        return _COMMANDS[name](clone)


def _guarded(name: str, work: Callable[[], bool]) -> int:
    try:
        return 0 if work() else 1
    except KeyboardInterrupt:
        say(f"{name}: interrupted; the same command again goes on from here")
    except (Trouble, OSError) as error:
        for line in told(name, error):
            say(line)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
