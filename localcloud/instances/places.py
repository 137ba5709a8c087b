"""The places for requests in the instances of one revision, and the line in front of them: first come, first served."""

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass, field

from localcloud.instances.blueprint import Blueprint
from localcloud.instances.pods import Pod
from localcloud.instances.ways import Address
from localcloud.wire import Code, Refusal

_LONGEST_LINE = 1000  # requests that wait for one revision [approximated]
PENDING_S = 10.0  # "3.5 times average startup time [...] or 10 seconds, whichever is greater" [about-instance-autoscaling]
_UNKNOWN_S = 60.0  # while no start was seen yet [approximated]
_FORGIVEN_S = 30.0  # an instance that lasts so long takes back what earlier ones did
_FIRST_REST_S, _LONGEST_REST_S = 0.5, 8.0


class Full(Refusal):
    """No instance became available in time, or none may be started: the front end answers 429."""

    def __init__(self, revision: str, why: str) -> None:
        super().__init__(Code.RESOURCE_EXHAUSTED, f"No instance of revision '{revision}' is available: {why}")


@dataclass(eq=False)
class Instance:
    """A pod that serves, and the requests that it has."""

    pod: Pod
    pool: "Pool"
    requests: int = 0
    errors: int = 0  # 5xx answers in a row
    born: float = field(default_factory=time.monotonic)
    last_used: float = field(default_factory=time.monotonic)
    quiet: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def id(self) -> str:
        """The instanceId of its log entries."""
        return self.pod.id

    @property
    def address(self) -> Address:
        """Where it gets its requests."""
        return self.pod.ports[self.pod.blueprint.ingress.port]

    @property
    def young(self) -> bool:
        """Whether it has hardly begun."""
        return time.monotonic() - self.born < _FORGIVEN_S

    def occupy(self) -> "Instance":
        """Count one more request."""
        self.requests += 1
        self.quiet.clear()
        return self

    def leave(self) -> None:
        """Count one request less."""
        self.requests -= 1
        self.last_used = time.monotonic()
        if not self.requests:
            self.quiet.set()


class Pool:
    """One revision's instances, oldest first, those that are starting, and the requests that wait for a place."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.instances: list[Instance] = []
        self.starting: set[asyncio.Task[Instance]] = set()
        self.line: deque[asyncio.Future[Instance]] = deque()
        self.retired = False
        self._startup_s: float | None = None  # how long a start takes, on average
        self._starts = self._strikes = 0
        self._struck = self._rests_until = 0.0

    @property
    def empty(self) -> bool:
        """Whether nothing is left to look after."""
        return not (self.instances or self.starting or self.line)

    @property
    def lacking(self) -> int:
        """How many starts the requests in line need, as far as they are allowed."""
        need = math.ceil(len(self.line) / self.blueprint.concurrency)
        return min(need - len(self.starting), self.blueprint.most - len(self.instances) - len(self.starting))

    @property
    def spare(self) -> list[Instance]:
        """The instances without a request that are not kept, the longest idle first."""
        if all(each.requests for each in self.instances):
            return []
        idle = sorted((each for each in self.instances if not each.requests), key=lambda each: each.last_used)
        kept = 0 if self.retired else self.blueprint.least
        return idle[: max(len(self.instances) - kept, 0)] if not (self.retired and self.line) else []

    def free(self) -> Instance | None:
        """The instance with the fewest requests, if it has a free place.

        Among equals: those that are kept at the least take turns, before the others, of which the oldest comes first: the rest can idle.
        """
        least = self.blueprint.least

        def load(at: int) -> tuple[int, int, float]:
            found = self.instances[at]
            return found.requests, max(at - least + 1, 0), found.last_used

        best = min(range(len(self.instances)), key=load, default=None)
        if best is None or self.instances[best].requests >= self.blueprint.concurrency:
            return None
        return self.instances[best]

    def join(self) -> "asyncio.Future[Instance]":
        """Stand in line; Full if it is too long."""
        if len(self.line) >= _LONGEST_LINE:
            raise Full(self.blueprint.revision, f"{_LONGEST_LINE} requests wait already.")
        place: asyncio.Future[Instance] = asyncio.get_running_loop().create_future()
        self.line.append(place)
        return place

    def withdraw(self, place: "asyncio.Future[Instance]") -> Instance | None:
        """Leave the line; gives the instance whose place was given at this very moment."""
        if place in self.line:
            self.line.remove(place)
        if place.done() and not place.cancelled() and place.exception() is None:
            return place.result()
        place.cancel()
        return None

    def hand_out(self) -> None:
        """Give every free place to who has waited longest."""
        while self.line and (instance := self.free()) is not None:
            place = self.line.popleft()
            if not place.done():
                place.set_result(instance.occupy())

    def disappoint(self, error: Exception) -> None:
        """Nobody in line will get a place."""
        while self.line:
            place = self.line.popleft()
            if not place.done():
                place.set_exception(error)

    # what is learnt of starts

    def patience_s(self, pending_s: float) -> float:
        """How long a request waits in line."""
        return max(pending_s, _UNKNOWN_S if self._startup_s is None and self.starting else 3.5 * (self._startup_s or 0))

    def came_up(self, seconds: float) -> None:
        """An instance started within so many seconds."""
        self._starts = min(self._starts + 1, 20)  # the older ones count less and less
        before = self._startup_s or 0.0
        self._startup_s = before + (seconds - before) / self._starts

    def strike(self) -> None:
        """A start failed, or an instance died early: after the first, starts rest for a while, longer each time [approximated]."""
        now = time.monotonic()
        self._strikes = self._strikes + 1 if now - self._struck < _FORGIVEN_S else 1
        self._struck = now
        if self._strikes > 1:
            self._rests_until = now + min(_FIRST_REST_S * 2 ** (self._strikes - 2), _LONGEST_REST_S)

    @property
    def rest_s(self) -> float:
        """For how long nothing is started yet."""
        return max(self._rests_until - time.monotonic(), 0.0)
