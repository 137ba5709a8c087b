"""What containers print becomes log entries: followed from the last line that was stored, line by line, in both streams."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from docker.errors import DockerException, NotFound
from requests import RequestException

from localcloud.blueprint import Blueprint
from localcloud.engine import Engine
from localcloud.entries import line_entry, nanoseconds
from localcloud.logs import LogStore
from localcloud.state import State
from localcloud.wire import Refusal

Stream = Literal["stdout", "stderr"]
STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
_OWN_ID = "logging.googleapis.com/insertId"
_LONGEST_LINE = 255 * 1024  # an entry may have 256 KB [https://cloud.google.com/logging/quotas]


@dataclass(frozen=True)
class _Line:
    container: str
    blueprint: Blueprint
    stream: Stream
    stamp: str
    text: str


class Output:
    """Follows containers in two threads each; their lines are stored in batches on the event loop."""

    def __init__(self, engine: Engine, state: State, store: LogStore) -> None:
        self._engine, self._state, self._store = engine, state, store
        self._loop = asyncio.get_running_loop()
        self._lock = threading.Lock()
        self._lines: list[_Line] = []
        self._woken = False

    def follow(self, container: str, blueprint: Blueprint, ended: asyncio.Event) -> None:
        """Follow a container from where its output was read up to; `ended` is set when both streams have ended and are stored."""
        open_streams = set(STREAMS)

        def close(stream: Stream) -> None:
            open_streams.discard(stream)
            if not open_streams:
                self._store_lines()
                ended.set()

        for stream in STREAMS:
            since = self._state.cursor(container, stream)
            thread = threading.Thread(
                target=self._follow, args=(container, blueprint, stream, since, close), daemon=True, name=f"output-{container[:8]}-{stream}"
            )
            thread.start()

    def forget(self, container: str) -> None:
        """Forget a container that is gone."""
        self._state.delete_cursors(container)

    def _follow(self, container: str, blueprint: Blueprint, stream: Stream, since: str, close: Callable[[Stream], None]) -> None:
        last, runs = _earlier(since), True
        while runs:
            try:
                last = self._read(container, blueprint, stream, last)
                runs = self._engine.running_now(container)
            except NotFound:
                break
            except (DockerException, Refusal, RequestException, OSError):
                time.sleep(0.5)  # the Engine is away
            if runs:
                time.sleep(0.5)  # the stream broke off while the container runs
        try:
            self._loop.call_soon_threadsafe(close, stream)
        except RuntimeError:
            return  # the local cloud is ending

    def _read(self, container: str, blueprint: Blueprint, stream: Stream, last: str) -> str:
        """Read a stream to its end; gives the stamp of the last line. The Engine cuts long lines into frames: they are joined again."""
        begun, parts, size = "", [], 0
        for frame in self._engine.lines(container, stream, _seconds(last)):
            head, _, rest = frame.partition(b" ")
            begun = begun or head.decode("ascii", "replace")
            if size < _LONGEST_LINE:
                parts.append(rest[: _LONGEST_LINE - size])
                size += len(rest)
            if not rest.endswith(b"\n"):
                continue
            if begun > last:
                self._take(_Line(container, blueprint, stream, begun, b"".join(parts).decode("utf-8", "replace").rstrip("\r\n")))
                last = begun
            begun, parts, size = "", [], 0
        if parts and begun > last:  # the last line, without an end
            self._take(_Line(container, blueprint, stream, begun, b"".join(parts).decode("utf-8", "replace")))
            last = begun
        return last

    def _take(self, line: _Line) -> None:
        with self._lock:
            self._lines.append(line)
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
        for (container, stream), stamp in {(line.container, line.stream): line.stamp for line in lines}.items():
            self._state.put_cursor(container, stream, stamp)


def _entry(line: _Line) -> object:
    """The line's entry; its id follows from the line, so that a line that is read twice is one entry."""
    name, revision = line.blueprint.service, line.blueprint.revision
    entry = line_entry(name.project, name.region, name.service, revision, line.container, line.stream, line.text, line.stamp)
    if _OWN_ID not in line.text:
        entry.insert_id = f"{nanoseconds(line.stamp):016x}{line.container[:6]}"
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
