"""Log entries on their way into the store: made late, held back, lost or doubled on request."""

import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

_log = logging.getLogger(__name__)

_NANO: Final = 1_000_000_000
Fate = Callable[[Any], tuple[float, ...]]
"""After how many seconds each copy of an entry arrives: (0,) as it should, () lost, (30,) late, (0, 0) twice with one insertId."""


@dataclass(order=True, frozen=True)
class _Held:
    until: float
    number: int
    entry: Any = field(compare=False)
    copy: int = field(compare=False)


class Inbox:
    """Takes entries from any thread at next to no cost; the writer takes out those whose time has come.

    `delay_s` is how long every entry takes until readers see it; `fate` is asked for each entry, on the thread that puts it in.
    """

    def __init__(self) -> None:
        self.delay_s = 0.0
        self.fate: Fate | None = None
        self._lock = threading.Lock()
        self._ready: list[Any] = []
        self._held: list[_Held] = []
        self._numbers = itertools.count()

    def put(self, given: Iterable[Any]) -> int:
        """Take entries, or functions that make one; gives how many wait to be taken out."""
        fate = self.fate
        if fate is not None:
            given = [copy for each in given for copy in self._fated(each, fate)]
        with self._lock:
            if self.delay_s:
                until = time.monotonic() + self.delay_s
                given = [_Held(until, next(self._numbers), each, 0) if not isinstance(each, _Held) else each for each in given]
            for each in given:
                if isinstance(each, _Held):
                    heapq.heappush(self._held, each)
                else:
                    self._ready.append(each)
            return len(self._ready)

    def take(self, *, everything: bool = False) -> list[tuple[Any, int]]:
        """The entries whose time has come, each with the number of its copy; `everything` also takes those that are held back."""
        now = time.monotonic()
        with self._lock:
            ready, self._ready = self._ready, []
            held: list[tuple[Any, int]] = []
            while self._held and (everything or self._held[0].until <= now):
                each = heapq.heappop(self._held)
                held.append((each.entry, each.copy))
        return [(entry, copy) for given, copy in (*((each, 0) for each in ready), *held) if (entry := _made(given)) is not None]

    def wait_s(self) -> float | None:
        """In how many seconds the next held entry's time comes; None if nothing is held."""
        with self._lock:
            return max(0.0, self._held[0].until - time.monotonic()) if self._held else None

    def _fated(self, given: Any, fate: Fate) -> Iterator[_Held]:
        entry: Any = _made(given)
        for copy, delay in enumerate(fate(entry) if entry is not None else ()):
            sent = entry
            if delay:
                sent = type(entry)()
                sent.CopyFrom(entry)
                received = entry.receive_timestamp.seconds * _NANO + entry.receive_timestamp.nanos + round(delay * _NANO)
                sent.receive_timestamp.seconds, sent.receive_timestamp.nanos = divmod(received, _NANO)
            yield _Held(time.monotonic() + self.delay_s + delay, next(self._numbers), sent, copy)


def _made(given: Any) -> Any | None:
    if not callable(given):
        return given
    try:
        return given()
    except Exception:
        _log.exception("A log entry could not be made, and is lost.")
        return None
