"""What is recorded of requests and instances, and written once a sample into a table of the state's file."""

import asyncio
import contextlib
import json
import logging
import sqlite3
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from localcloud import clock, form
from localcloud.instances.blueprint import Blueprint, Part
from localcloud.monitoring.series import (
    BILLED,
    CPU,
    INSTANCES,
    LATENCIES,
    MEMORY,
    METRICS,
    REQUESTS,
    STARTUPS,
    Distribution,
    Labels,
    Metric,
    Point,
    Series,
    Tally,
    Value,
)
from localcloud.naming import ServiceName, project_number
from localcloud.state import State

log = logging.getLogger(__name__)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS samples (number INTEGER PRIMARY KEY AUTOINCREMENT, metric TEXT NOT NULL, project TEXT NOT NULL,
    location TEXT NOT NULL, service TEXT NOT NULL, revision TEXT NOT NULL, labels TEXT NOT NULL, start INTEGER NOT NULL,
    end INTEGER NOT NULL, value TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS samples_of ON samples (metric, end);
"""
_KEPT_NS = 42 * 24 * 3600 * 10**9  # six weeks, as on Google
_MOST_ROWS = 500_000  # beyond it the oldest go
_USAGE_S = 5.0
_SIDE_BY_SIDE = 16


class Member(Protocol):
    """One container of an instance."""

    @property
    def id(self) -> str: ...
    @property
    def part(self) -> Part: ...


class Pod(Protocol):
    """What one instance runs in."""

    @property
    def members(self) -> Sequence[Member]: ...


class Census(Protocol):
    """The instances of one revision at a moment."""

    @property
    def blueprint(self) -> Blueprint: ...
    @property
    def active(self) -> int: ...
    @property
    def idle(self) -> int: ...
    @property
    def pods(self) -> Sequence[Pod]: ...


class Usage(Protocol):
    """What a container has used (seconds of a processor, since it began) and uses (bytes of memory)."""

    @property
    def cpu_seconds(self) -> float: ...
    @property
    def memory_bytes(self) -> int: ...


Key = tuple[ServiceName, str]  # a service and the short name of a revision
Row = tuple[str, str, str, str, str, str, int, int, str]


@dataclass(frozen=True)
class Sampling:
    """How often a sample is taken, and how long after its end it can be read."""

    period_s: float = form.field(10, least=0.1, most=3600)
    delay_s: float = form.field(0, least=0, most=3600)


REAL_SAMPLING = Sampling(period_s=60, delay_s=180)  # "sampled every 60 seconds; not visible for up to 180": we take the longest


class Metrics:
    """Counts on the event loop's thread. `sampling` may be changed at any time."""

    def __init__(self, state: State) -> None:
        self._state, self._db = state, state.connection
        self._path = Path(self._db.execute("PRAGMA database_list").fetchone()[2])
        self._db.executescript(_SCHEMA)
        self.sampling = Sampling()
        self._requests: dict[tuple[ServiceName, str, int], Tally] = {}
        self._startups: dict[Key, Tally] = {}
        self._used: dict[str, tuple[float, int]] = {}  # by container: seconds of a processor, and when they were read
        self._began = clock.time_ns()
        self._task: asyncio.Task[None] | None = None

    # what the others tell

    def request(self, blueprint: Blueprint, status: int, latency_s: float) -> None:
        """A request has ended."""
        key = (blueprint.service, blueprint.revision, status)
        tally = self._requests.get(key)
        if tally is None:
            tally = self._requests[key] = Tally(LATENCIES.buckets)
        tally.add(latency_s * 1000)

    def startup(self, blueprint: Blueprint, seconds: float) -> None:
        """An instance has come up."""
        self._startups.setdefault((blueprint.service, blueprint.revision), Tally(STARTUPS.buckets)).add(seconds * 1000)

    # sampling

    def watch(self, census: Callable[[], Iterable[Census]], usage: Callable[[str], Awaitable[Usage | None]]) -> None:
        """Begin to sample at whole periods: 10:00, 10:01 and so on."""
        self._task = asyncio.create_task(self._run(census, usage))

    async def close(self) -> None:
        """Stop, and write what was counted since the last sample."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        try:
            self._write(self._counted(clock.time_ns()))
        except Exception:  # a full disk, for example: that must not keep the local cloud from ending
            log.exception("the last sample of the metrics was lost")

    async def _run(self, census: Callable[[], Iterable[Census]], usage: Callable[[str], Awaitable[Usage | None]]) -> None:
        due = 0
        while True:
            period = max(1, round(self.sampling.period_s * 1e9))
            due = (clock.time_ns() // period + 1) * period
            while (left := due - clock.time_ns()) > 0 and period == max(1, round(self.sampling.period_s * 1e9)):
                await asyncio.sleep(min(left / 1e9, 1.0))
            if clock.time_ns() < due:  # the period is another one now
                continue
            try:
                await self._sample(due, tuple(census()), usage)
            except Exception:  # a full disk, for example: the next sample may be written
                log.exception("a sample of the metrics was lost")

    async def _sample(self, end: int, found: tuple[Census, ...], usage: Callable[[str], Awaitable[Usage | None]]) -> None:
        rows = self._counted(end)
        for each in found:
            name, revision = each.blueprint.service, each.blueprint.revision
            for state, number in (("active", each.active), ("idle", each.idle)):
                rows.append(_row(INSTANCES, name, revision, (("state", state),), Point(end, end, number)))
            if each.active:  # [approximated: those that are active at the end of the period are billed for all of it]
                rows.append(_row(BILLED, name, revision, (), Point(self._start(end), end, each.active * self.sampling.period_s)))
        self._began = end
        rows += await self._usages(found, usage)
        self._write(rows)

    def _start(self, end: int) -> int:
        """Where the interval begins that ends now; the clock may have been put back."""
        return self._began if self._began < end else end - round(self.sampling.period_s * 1e9)

    def _counted(self, end: int) -> list[Row]:
        start, rows = self._start(end), []
        requests, self._requests = self._requests, {}
        startups, self._startups = self._startups, {}
        for (name, revision, status), tally in requests.items():
            labels = (("response_code", str(status)), ("response_code_class", f"{status // 100}xx"))
            rows.append(_row(REQUESTS, name, revision, labels, Point(start, end, tally.count)))
            rows.append(_row(LATENCIES, name, revision, labels, Point(start, end, tally.distribution())))
        for (name, revision), tally in startups.items():
            rows.append(_row(STARTUPS, name, revision, (), Point(start, end, tally.distribution())))
        return rows

    async def _usages(self, found: tuple[Census, ...], usage: Callable[[str], Awaitable[Usage | None]]) -> list[Row]:
        """The utilisations of all containers; one value a container and sample [approximated: the real one samples more often]."""
        doors, read, rows = asyncio.Semaphore(_SIDE_BY_SIDE), dict[str, tuple[float, int]](), []

        async def ask(member: Member) -> tuple[Member, Usage | None, int]:
            async with doors:
                with contextlib.suppress(Exception):  # it went meanwhile, or the Engine is away
                    return member, await asyncio.wait_for(usage(member.id), _USAGE_S), clock.time_ns()
            return member, None, 0

        for each in found:
            cpu, memory = Tally(CPU.buckets), Tally(MEMORY.buckets)
            for member, used, at in await asyncio.gather(*(ask(member) for pod in each.pods for member in tuple(pod.members))):
                if used is None:
                    continue
                memory.add(used.memory_bytes / member.part.memory)
                read[member.id] = (used.cpu_seconds, at)
                before = self._used.get(member.id)
                if before is not None and at > before[1]:
                    cpu.add(max(0.0, used.cpu_seconds - before[0]) / ((at - before[1]) / 1e9) / member.part.cpu)
            end = self._began
            start = end - round(self.sampling.period_s * 1e9)
            for metric, tally in ((CPU, cpu), (MEMORY, memory)):
                if tally.count:
                    point = Point(start, end, tally.distribution())
                    rows.append(_row(metric, each.blueprint.service, each.blueprint.revision, (), point))
        self._used = read
        return rows

    # what is kept

    def _write(self, rows: list[Row]) -> None:
        with self._state.transaction():
            text = "INSERT INTO samples (metric, project, location, service, revision, labels, start, end, value) VALUES "
            self._db.executemany(text + "(?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
            self._db.execute("DELETE FROM samples WHERE number <= (SELECT max(number) FROM samples) - ?", (_MOST_ROWS,))
            for metric in METRICS:
                self._db.execute("DELETE FROM samples WHERE metric = ? AND end < ?", (metric, clock.time_ns() - _KEPT_NS))

    def newest(self) -> int:
        """How far the samples go: what `series` may be held to, so that the pages of a list stay those of its first one."""
        with self._reading() as reader:
            return int(reader.execute("SELECT coalesce(max(number), 0) FROM samples").fetchone()[0])

    def series(self, metric: Metric, project: str, start: int, end: int, newest: int) -> list[Series]:
        """The series of a metric in a project (its id or number) with points that end in (start, end] and can be seen by now.

        For any thread: it reads by a connection of its own.
        """
        seen = min(end, clock.time_ns() - round(self.sampling.delay_s * 1e9))
        query = "SELECT project, location, service, revision, labels, start, end, value FROM samples"
        query += " WHERE metric = ? AND end > ? AND end <= ? AND number <= ? ORDER BY end DESC, number DESC"
        points: dict[tuple[str, ...], list[Point]] = {}
        with self._reading() as reader:
            for *key, first, last, value in reader.execute(query, (metric.type, start, seen, newest)):
                points.setdefault(tuple(key), []).append(Point(first, last, _value(metric, json.loads(value))))
        found = [_series(metric, key, tuple(each)) for key, each in points.items() if project in (key[0], project_number(key[0]))]
        return sorted(found, key=lambda each: (each.labels, each.resource))

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(self._path, timeout=5)) as reader:
            yield reader


def _series(metric: Metric, key: Sequence[str], points: tuple[Point, ...]) -> Series:
    project, location, service, revision, labels = key
    resource = (
        ("project_id", project), ("service_name", service), ("revision_name", revision), ("location", location),
        ("configuration_name", service),
    )  # fmt: skip
    named = tuple((name, text) for name, text in json.loads(labels))
    return Series(metric.type, named, resource, metric.kind, metric.value_type, metric.unit, points)


def _row(metric: Metric, name: ServiceName, revision: str, labels: Labels, point: Point) -> Row:
    value = point.value
    kept = [value.count, value.mean, value.squares, value.counts] if isinstance(value, Distribution) else value
    where = (metric.type, name.project, name.region, name.service, revision)
    return (*where, json.dumps(labels), point.start, point.end, json.dumps(kept))


def _value(metric: Metric, kept: Any) -> Value:
    if metric.value_type != "DISTRIBUTION":
        number: int | float = kept
        return number
    count, mean, squares, counts = kept
    return Distribution(metric.buckets, count, mean, squares, tuple(counts))
