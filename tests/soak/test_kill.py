"""SIGKILL in the middle of writes: on restart the state is the one before or the one after, operations end, services answer."""

import contextlib
import functools
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from clouds import PARENT, ROOT, SOON, Cloud, eventually
from google.api_core.exceptions import GoogleAPICallError
from google.api_core.operation import Operation
from google.longrunning import operations_pb2, operations_pb2_grpc
from soaking import Soak
from writes import KINDS, SERVICES, Write, Writer

_MOMENTS = 24  # among so many a sample chooses; most writes have more


@dataclass
class Mortal(Cloud):
    """A local cloud that is started again and again, and dies where it is told to (tests/soak/aimed.py)."""

    pid: int = 0
    lines: "queue.Queue[str]" = field(default_factory=queue.Queue)
    addresses: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.aim = self.state.parent / "aim"
        command = [sys.executable, str(Path(__file__).parent / "aimed.py"), str(self.aim), "--port", str(self.port), *self.options]
        command += ["--state", str(self.state), "--registry", self.registry, "--clone", self.clone]
        pipe = subprocess.PIPE
        with (self.state.parent / f"{self.clone}.log").open("a") as log:
            self.process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=log, text=True, bufsize=1)
        threading.Thread(target=self._read, daemon=True).start()

    def start(self, target: int = 0) -> bool:
        """Start it, to die at this moment; whether it came to serve before."""
        assert self.process is not None
        assert self.process.stdin is not None
        self.process.stdin.write(f"{target}\n")
        self.pid = int(self.lines.get(timeout=30).removeprefix("pid "))
        if (line := self.lines.get(timeout=30)).startswith("ended"):
            assert target, self.own_log()[-3000:]
            self.pid = 0
            return False
        assert "serves on" in line, line
        self.lines.get(timeout=30)
        self.connect()
        return True

    def count(self, target: int) -> None:
        """Have it die at this moment, counted from now."""
        self.aim.write_text(str(target))
        with contextlib.suppress(ProcessLookupError):  # it died by what it was told before
            os.kill(self.pid, signal.SIGUSR1)
        eventually(lambda: not self.aim.exists() or self.dead())

    def dead(self, within: float = 0.001) -> bool:
        """Whether it has died, or does so within so many seconds."""
        with contextlib.suppress(queue.Empty):
            if self.pid:
                assert self.lines.get(timeout=within) == "ended -9"
                self.pid = 0
                self.channel.close()
        return not self.pid

    def die(self) -> None:
        """End it now, whatever it does."""
        if not self.dead():
            os.kill(self.pid, signal.SIGKILL)
            assert self.dead(within=10)

    def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        with self.process.stdout as told:
            for line in told:
                self.lines.put(line.strip())

    def end(self) -> None:
        assert self.process is not None
        if self.pid:
            self.die()
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.down()


@pytest.fixture
def mortal(registry: str, web_image: str, tmp_path: Path) -> Iterator[Mortal]:
    made = Mortal(tmp_path / "state", registry, web_image, ("--startup-seconds", "3"))
    try:
        yield made
    finally:
        made.end()


@dataclass
class Caller(threading.Thread):
    """Makes a write in the background, and waits for the end of its operation."""

    write: Write
    acknowledged: Any = None
    refused: GoogleAPICallError | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.start()

    def __hash__(self) -> int:
        return id(self)

    def run(self) -> None:
        try:
            self.acknowledged = self.write.call() or True
            if isinstance(self.acknowledged, Operation):
                self.acknowledged.result(polling=SOON)
        except GoogleAPICallError as error:
            self.refused = error
        except ValueError as error:
            if "closed channel" not in str(error):  # grpc's word, when the test has closed the dead cloud's channel
                raise


def operations_ended(cloud: Cloud) -> bool:
    request = operations_pb2.ListOperationsRequest(name=PARENT, filter="done=false")
    return not operations_pb2_grpc.OperationsStub(cloud.channel).ListOperations(request).operations


def no_strays(cloud: Cloud, seen: dict[str, Any]) -> bool:
    """Whether no container and no volume is left that nobody needs: of a revision that is gone, or has no traffic."""
    needed = {revision for name in SERVICES if seen[name] for revision, percent in seen[name].traffic if percent}
    return {each.labels["relais.revision"] for each in cloud.containers()} <= needed


def check(cloud: Mortal, writer: Writer, before: dict[str, Any], call: Caller, where: str) -> dict[str, Any]:
    """Of a cloud that died and was started again: what the clients see is the state before or after, and all of it works."""
    write, told = call.write, call.acknowledged is not None
    seen = writer.seen()
    assert seen[write.key] == write.after or (not told and seen[write.key] == before[write.key]), f"{where}: {seen[write.key]}"
    assert {**seen, write.key: None} == {**before, write.key: None}, where
    eventually(lambda: operations_ended(cloud))
    if isinstance(call.acknowledged, Operation):
        request = operations_pb2.GetOperationRequest(name=call.acknowledged.operation.name)
        operation: Any = operations_pb2_grpc.OperationsStub(cloud.channel).GetOperation(request)
        assert operation.HasField("response"), f"{where}: {operation.error}"
    seen = writer.seen()  # what was not acknowledged may have been finished meanwhile
    assert seen[write.key] in (write.after, before[write.key]), where
    for name in SERVICES:
        if seen[name] is None:
            cloud.addresses.pop(name, None)
            continue
        service = cloud.get(name)
        assert not service.reconciling, where
        assert cloud.addresses.setdefault(name, service.uri) == service.uri, where
        answer = httpx.get(service.uri, timeout=20)
        serving = {revision for revision, _ in seen[name].traffic}
        assert (answer.status_code, answer.text in serving) == (200, True), f"{where}: {answer.text}"
    eventually(functools.partial(no_strays, cloud, seen))
    return seen


@dataclass
class Rounds:
    """One kill after the other, on one state."""

    cloud: Mortal
    writer: Writer
    seed: int
    died: int = 0
    acknowledged: int = 0
    longest: float = 0

    def __post_init__(self) -> None:
        assert self.cloud.start()
        for kind in ("create", "create", "secret", "repository", "deploy"):
            self.make(kind)
        self.seen = self.writer.seen()

    def make(self, kind: str) -> None:
        """Make a write in peace."""
        made = self.writer.next(self.writer.seen(), kind).call()
        if isinstance(made, Operation):
            made.result(polling=SOON)
        self.seen = self.writer.seen()

    def possible(self, kind: str) -> None:
        """Have a write of this kind possible."""
        first = {"create": "delete", "secret": "delete secret", "repository": "delete repository", "secret version": "secret"}
        first |= {"delete secret": "secret", "delete repository": "repository"}
        while kind not in self.writer.possible(self.seen):
            if kind == "delete revision":
                self.make("deploy" if all(not self.seen[name] or len(self.seen[name].revisions) < 3 for name in SERVICES) else "traffic")
            else:
                self.make(first.get(kind, "create"))

    def turn(self, kind: str, target: int, kill: Callable[[], None] = lambda: None) -> bool:
        """Kill it in a write of this kind, at this moment or by `kill`; whether it died before the write was over."""
        began = time.monotonic()
        write = self.writer.next(self.seen, kind)
        self.cloud.count(target)
        call = Caller(write)
        kill()
        while call.is_alive() and not self.cloud.dead(within=0.02):
            assert time.monotonic() < began + 60
        if not self.cloud.dead(within=0.05):
            self.cloud.count(0)
        died = self.cloud.dead()
        if died:
            self.cloud.start()
        call.join(20)
        where = f"{write.kind}, moment {target}, seed {self.seed}: {write}, acknowledged: {call.acknowledged}, refused: {call.refused}"
        assert not call.is_alive(), where
        assert died or call.refused is None, where
        self.seen = check(self.cloud, self.writer, self.seen, call, where)
        self.died, self.acknowledged = self.died + died, self.acknowledged + (died and call.acknowledged is not None)
        self.longest = max(self.longest, time.monotonic() - began)
        return died


def test_killed_before_or_after_any_statement_it_comes_back_with_the_state_before_or_after(mortal: Mortal, soak: Soak) -> None:
    chance = soak.random()
    rounds = Rounds(mortal, Writer(mortal, chance), soak.seed)
    for kind in KINDS if soak.whole else chance.sample(KINDS, 4):
        target = 1 if soak.whole else chance.randrange(1, _MOMENTS)
        rounds.possible(kind)
        while rounds.turn(kind, target) and soak.whole:
            target += 1
            rounds.possible(kind)
        print(f"{kind}: dead at moments up to {target - 1}", flush=True)
    print(f"{rounds.died} times dead, {rounds.acknowledged} acknowledged, longest round {rounds.longest:.1f} s; {rounds.writer.kinds}")


def test_killed_at_any_moment_it_comes_back_with_the_state_before_or_after(mortal: Mortal, soak: Soak) -> None:
    chance = soak.random()
    rounds = Rounds(mortal, Writer(mortal, chance), soak.seed)

    def kill() -> None:
        time.sleep(chance.choice([0.005, 0.01, 0.5]) * chance.random())
        mortal.die()

    for _ in range(soak.rounds(sample=2, whole=40)):
        rounds.turn("", 0, kill)
    print(f"{rounds.died} times dead, {rounds.acknowledged} acknowledged, longest round {rounds.longest:.1f} s; {rounds.writer.kinds}")


def test_killed_while_it_starts_it_starts_the_next_time(mortal: Mortal, soak: Soak) -> None:
    chance, most = soak.random(), 1
    for target in range(1, 200) if soak.whole else sorted(chance.sample(range(1, 40), 8)):
        shutil.rmtree(mortal.state, ignore_errors=True)
        lived = mortal.start(target)
        if not lived:
            assert mortal.start()
        mortal.die()
        if lived:
            break
        most = target
    print(f"it died at moments up to {most} of a first start")
