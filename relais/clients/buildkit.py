"""BuildKit's progress, as the Engine API tells it (items `moby.buildkit.trace`): decoded into lines, and into what failed.

https://github.com/moby/buildkit/blob/master/api/services/control/control.proto (StatusResponse, Vertex, VertexStatus, VertexLog)
"""

import re
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

_TAIL: Final = 40  # log lines of a step that are kept for its error
_LOG: Final = 20_000  # lines of a build that are kept
_COPY: Final = "copy /context /"
_CACHED: Final = re.compile(r"#\d+ CACHED$")
_ANSI: Final = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")


def fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """The fields of a protobuf message: varints as numbers, everything of a length as bytes."""
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
        elif kind == 2:
            length, at = _varint(data, at)
            yield number, data[at : at + length]
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            raise ValueError(f"not a protobuf message: wire type {kind}")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


@dataclass
class _Step:
    number: int
    name: str
    told: bool = False
    ended: bool = False
    error: str = ""


class Progress:
    """A build as it comes to be known: lines for whoever watches, as `docker buildx build --progress=plain` has them, and what failed."""

    def __init__(self, on_line: Callable[[str], None]) -> None:
        self._on_line = on_line
        self._steps: dict[bytes, _Step] = {}
        self._tails: dict[bytes, deque[str]] = {}
        self._open: dict[bytes, str] = {}
        self._log: deque[str] = deque(maxlen=_LOG)

    @property
    def log(self) -> str:
        return "\n".join(self._log)

    @property
    def cached_steps(self) -> int:
        """How many steps were taken from the cache."""
        return sum(1 for line in self._log if _CACHED.match(line))

    def failed(self) -> tuple[str, tuple[str, ...]]:
        """The step that failed and its last lines; empty where no step did."""
        for digest, step in self._steps.items():
            if step.error:
                rest = self._open.get(digest, "")
                return step.name, (*self._tails.get(digest, ()), *([rest] if rest else ()))
        return "", ()

    def say(self, line: str) -> None:
        """One line of the build."""
        self._log.append(line)
        self._on_line(line)

    def take(self, trace: bytes) -> None:
        """One StatusResponse."""
        for number, value in fields(trace):
            if isinstance(value, bytes):
                {1: self._vertex, 2: self._status, 3: self._output}.get(number, lambda _: None)(value)

    def finish(self) -> None:
        """Say what came without a line's end."""
        for digest, text in self._open.items():
            if text:
                self._line(digest, text)
        self._open.clear()

    def _vertex(self, data: bytes) -> None:
        found = dict(fields(data))  # the fields that matter here occur once
        digest, name = _bytes(found.get(1)), " ".join(_text(found.get(3)).split()).replace(_COPY, "[internal] copy build context")
        step = self._steps.setdefault(digest, _Step(len(self._steps) + 1, name))
        begun, ended, error = 5 in found, 6 in found, _text(found.get(7))
        cached = bool(found.get(4)) and not name.startswith("[internal]")
        if not step.told and (begun or cached or error):
            step.told = True
            self.say(f"#{step.number} {name}")
        if not step.ended and (ended or cached or error):
            step.ended, step.error = True, error
            self.say(f"#{step.number} {f'ERROR: {error}' if error else 'CACHED' if cached else 'DONE'}")

    def _status(self, data: bytes) -> None:
        found = dict(fields(data))
        step, name = self._steps.get(_bytes(found.get(2))), _text(found.get(3)) or _text(found.get(1))
        if step is not None and 8 in found and name:
            self.say(f"#{step.number} {name}")

    def _output(self, data: bytes) -> None:
        found = dict(fields(data))
        digest = _bytes(found.get(1))
        *whole, self._open[digest] = (self._open.get(digest, "") + _text(found.get(4))).split("\n")
        for line in whole:
            self._line(digest, line)

    def _line(self, digest: bytes, line: str) -> None:
        plain = _ANSI.sub("", line.rstrip("\r")).rpartition("\r")[2]
        self._tails.setdefault(digest, deque(maxlen=_TAIL)).append(plain)
        step = self._steps.get(digest)
        self.say(f"#{step.number} {plain}" if step else plain)


def _bytes(value: int | bytes | None) -> bytes:
    return value if isinstance(value, bytes) else b""


def _text(value: int | bytes | None) -> str:
    return _bytes(value).decode("utf-8", errors="replace")
