"""Background processes of this clone: started in their own session, recorded by id and start time, ended by that record alone."""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from setup.trouble import Trouble


@dataclass(frozen=True)
class Service:
    """One background process: how it is started, how it shows that it is well."""

    name: str
    command: Sequence[str]
    log: Path
    record: Path
    healthy: Callable[[], bool]
    # What the running process was made from; when this changes, it is started anew.
    key: str = ""
    ready_within: float = 60
    # How long it may take to end by itself after SIGTERM.
    ends_within: float = 15
    # Whether its children end first, by themselves: a worker waits for its runs, however long they take, or kills them as they tidy up.
    children_first: bool = False


def born(pid: int) -> str:
    """When this process started, as the system counts; empty when there is no such process, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self/stat").exists():
            return ""
    shown = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, timeout=10, check=False)
    return shown.stdout.strip()


def running(record: Path) -> dict[str, str]:
    """The record of a process that still runs, else nothing: another process with the same id is not ours."""
    try:
        known: dict[str, str] = json.loads(record.read_text())
        pid, started = int(known["pid"]), known["started"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return known if started and born(pid) == started else {}


def ensure(service: Service, env: Mapping[str, str], cwd: Path, say: Callable[[str], None]) -> bool:
    """Start the service unless it runs and is well; True when it was started."""
    known = running(service.record)
    if known and known.get("key") == service.key and _well_within(service, 10):
        return False
    if known:
        say(f"{service.name} is started anew ({'out of date' if known.get('key') != service.key else 'it did not answer'})")
        stop(service.record, service.ends_within, children_first=service.children_first)
    start(service, env, cwd)
    _wait(service, say)
    return True


def start(service: Service, env: Mapping[str, str], cwd: Path) -> None:
    """Start it in a session of its own, so that it outlives make and no terminal's signal reaches it."""
    service.record.parent.mkdir(parents=True, exist_ok=True)
    with service.log.open("ab") as log:
        log.write(f"--- {time.strftime('%Y-%m-%d %H:%M:%S')} {' '.join(service.command)}\n".encode())
        log.flush()
        process = subprocess.Popen(
            service.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=dict(env), cwd=cwd
        )
    record = {"pid": str(process.pid), "started": born(process.pid), "key": service.key, "command": " ".join(service.command)}
    service.record.write_text(json.dumps(record))


def _well_within(service: Service, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while running(service.record):
        if service.healthy():
            return True
        if time.monotonic() > until:
            return False
        time.sleep(0.2)
    return False


def _wait(service: Service, say: Callable[[str], None]) -> None:
    began = time.monotonic()
    while not _well_within(service, min(10.0, began + service.ready_within - time.monotonic())):
        waited = time.monotonic() - began
        if not running(service.record):
            raise Trouble(f"{service.name} ended {waited:.0f} s after its start.", log=service.log)
        if waited >= service.ready_within:
            stop(service.record, service.ends_within, children_first=service.children_first)
            raise Trouble(f"{service.name} did not answer within {service.ready_within:.0f} s.", log=service.log)
        say(f"{service.name}: not ready after {waited:.0f} s, waiting until {service.ready_within:.0f} s")


def stop(record: Path, ends_within: float, *, children_first: bool = False) -> bool:
    """End a recorded process and what it started: ask, wait, then insist; True when one was running."""
    known = running(record)
    if known:
        leader = int(known["pid"])
        if children_first:
            _end_children(leader, ends_within)
        family = _family(leader)
        _send(leader, known["started"], signal.SIGTERM)
        if not _gone(family, ends_within):
            for pid, started in {**family, **_family(leader)}.items():
                _send(pid, started, signal.SIGKILL)
            _gone(family, 5)
    record.unlink(missing_ok=True)
    return bool(known)


def _end_children(leader: int, within: float) -> None:
    """Ask each child once, also those that are born meanwhile, and wait until none is left."""
    asked: set[tuple[int, str]] = set()
    until = time.monotonic() + within
    while time.monotonic() < until:
        family = _family(leader)
        family.pop(leader, None)
        if not family:
            return
        for pid, started in family.items():
            if (pid, started) not in asked:
                asked.add((pid, started))
                _send(pid, started, signal.SIGTERM)
        time.sleep(0.1)


def _send(pid: int, started: str, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if born(pid) == started:
            os.kill(pid, number)


def _gone(family: Mapping[int, str], within: float) -> bool:
    until = time.monotonic() + within
    while any(born(pid) == started for pid, started in family.items()):
        if time.monotonic() > until:
            return False
        for pid in family:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        time.sleep(0.1)
    return True


def _family(leader: int) -> dict[int, str]:
    """The process, its children and theirs (a worker's runs have sessions of their own), each with its start time."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    family, waiting = {}, [leader]
    while waiting:
        pid = waiting.pop()
        started = born(pid)
        if started:
            family[pid] = started
        waiting += children.get(pid, [])
    return family


def _parents() -> Iterator[tuple[int, int]]:
    """Each process with its parent."""
    if Path("/proc/self/stat").exists():
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])
        return
    shown = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, timeout=10, check=True).stdout
    for line in shown.splitlines():
        pid, parent = line.split()
        yield int(pid), int(parent)
