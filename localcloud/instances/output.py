"""What containers print becomes log entries: followed from the last line that was stored, line by line."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from docker.errors import DockerException, NotFound
from requests import RequestException
from urllib3.exceptions import HTTPError

from localcloud.instances.blueprint import Blueprint, Part
from localcloud.instances.engine import Engine
from localcloud.logs.entries import line_entry, nanoseconds
from localcloud.logs.service import LogStore
from localcloud.state import State
from localcloud.wire import Refusal

STREAMS = ("stdout", "stderr")
_OWN_ID = "logging.googleapis.com/insertId"
_LONGEST_LINE = 255 * 1024  # an entry may have 256 KB [https://cloud.google.com/logging/quotas]


@dataclass(frozen=True)
class Source:
    """A container whose output is followed; `instance` is the instanceId of its entries."""

    container: str
    instance: str
    blueprint: Blueprint
    part: Part


@dataclass(frozen=True)
class _Line:
    source: Source
    stream: str
    stamp: str
    text: str


@dataclass
class _Joint:
    """A line of one stream that is being read: the Engine cuts long ones into frames."""

    begun: str = ""
    parts: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, frame: bytes) -> bool:
        """Add a frame; whether the line is whole."""
        head, _, rest = frame.partition(b" ")
        self.begun = self.begun or head.decode("ascii", "replace")
        if self.size < _LONGEST_LINE:
            self.parts.append(rest[: _LONGEST_LINE - self.size])
            self.size += len(rest)
        return rest.endswith(b"\n")

    @property
    def text(self) -> str:
        """What was read so far."""
        return b"".join(self.parts).decode("utf-8", "replace").rstrip("\r\n")


class Output:
    """Follows each container in a thread; the lines are stored in batches on the event loop."""

    def __init__(self, engine: Engine, state: State, store: LogStore) -> None:
        self._engine, self._state, self._store = engine, state, store
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self._woken = False

    def follow(self, source: Source, ended: asyncio.Event) -> None:
        """Follow a container from where its output was read up to; `ended` is set when it has ended and all is stored."""

        def close() -> None:
            self._store_lines()
            ended.set()

        last = {stream: _earlier(self._state.cursor(source.container, stream)) for stream in STREAMS}
        name = f"output-{source.container[:8]}"
        threading.Thread(target=self._follow, args=(source, last, close), daemon=True, name=name).start()

    def forget(self, container: str) -> None:
        """Forget a container that is gone."""
        self._state.delete_cursors(container)

    def _follow(self, source: Source, last: dict[str, str], close: Callable[[], None]) -> None:
        runs = True
        while True:
            try:
                self._read(source, last, follow=runs)
                if not runs:
                    break
                runs = self._engine.running_now(source.container)
            except NotFound:
                break
            except (DockerException, Refusal, RequestException, HTTPError, OSError):
                time.sleep(0.5)  # the Engine is away
                continue
            if runs:
                time.sleep(0.5)  # the stream broke off while the container runs
        try:
            self._loop.call_soon_threadsafe(close)
        except RuntimeError:
            return  # the local cloud is ending

    def _read(self, source: Source, last: dict[str, str], *, follow: bool) -> None:
        """Read both streams to their end; `last` has the stamps of their last lines. Where it did not follow, that was all."""
        lines = {stream: _Joint() for stream in STREAMS}
        for stream, frame in self._engine.frames(source.container, _seconds(min(last.values())), follow=follow):
            if lines[stream].add(frame):
                self._take(source, stream, lines[stream], last)
                lines[stream] = _Joint()
        for stream, line in lines.items():
            if line.begun:  # the last line, without an end
                self._take(source, stream, line, last)

    def _take(self, source: Source, stream: str, line: _Joint, last: dict[str, str]) -> None:
        if line.begun <= last[stream]:
            return
        last[stream] = line.begun
        with self._lock:
            self._lines.append(_Line(source, stream, line.begun, line.text))
            wake, self._woken = not self._woken, True
        if wake:
            try:
                self._loop.call_soon_threadsafe(self._loop.call_later, 0.02, self._store_lines)
            except RuntimeError:
                return  # the local cloud is ending; the line is read again next time

    def _store_lines(self) -> None:
        with self._lock:
            lines, self._lines, self._woken = self._lines, [], False
        if not lines:
            return
        self._store.write([_entry(line) for line in lines])
        for (container, stream), stamp in {(line.source.container, line.stream): line.stamp for line in lines}.items():
            self._state.put_cursor(container, stream, stamp)


def _entry(line: _Line) -> object:
    """The line's entry; its id follows from the line, so that a line that is read twice is one entry."""
    source, blueprint = line.source, line.source.blueprint
    name = blueprint.service
    entry = line_entry(
        name.project, name.region, name.service, blueprint.revision, source.instance, line.stream, line.text, line.stamp
    )
    for key, value in blueprint.labels:
        if key not in entry.labels:  # the line's own go first
            entry.labels[key] = value
    if len(blueprint.parts) > 1:
        entry.labels["container_name"] = source.part.name  # [public issue reports: set where there are sidecars]
    if _OWN_ID not in line.text:
        entry.insert_id = f"{nanoseconds(line.stamp):016x}{source.container[:6]}"
    return entry


def _earlier(stamp: str) -> str:
    """Two seconds before the last line that was handed to the store, which may not have had time to write it."""
    if not stamp:
        return ""
    before = datetime.fromisoformat(stamp[:19]) - timedelta(seconds=2)
    return f"{before:%Y-%m-%dT%H:%M:%S}.000000000Z"


def _seconds(stamp: str) -> float:
    """A second before a stamp of the Engine: what it then sends again is known by its stamp."""
    return datetime.fromisoformat(stamp[:19] + "+00:00").timestamp() - 1 if stamp else 0.0
