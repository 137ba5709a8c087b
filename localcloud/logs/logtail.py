"""A live tail: what arrives in the store from now on, held for a moment so that late entries still come in their order."""

import asyncio
import heapq
import itertools
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Final

Read = Callable[[int], Any]  # the entries after a place, and the next place: an awaitable

_POLL_S: Final = 0.1
_A_MINUTE: Final = 60_000  # entries that one tail gives in a minute: https://cloud.google.com/logging/quotas
_NANO: Final = 1_000_000_000


async def tail(read: Read, place: int, window_s: float) -> AsyncIterator[tuple[Sequence[Any], int]]:
    """Gives entries by timestamp as they leave the window, and how many were left out because they were too many."""
    held: list[tuple[int, int, Any]] = []
    windows: deque[tuple[float, int]] = deque()
    numbers = itertools.count()
    began, given = time.monotonic(), 0
    while True:
        found, place = await read(place)
        now = time.monotonic()
        for entry in found:
            stamp = entry.timestamp.seconds * _NANO + entry.timestamp.nanos
            heapq.heappush(held, (stamp, next(numbers), entry))
            windows.append((now + window_s, stamp))
        ready: list[Any] = []
        while windows and windows[0][0] <= now:  # it leaves, and with it what has come meanwhile and is older
            _, until = windows.popleft()
            while held and held[0][0] <= until:
                ready.append(heapq.heappop(held)[2])
        if now - began >= 60:
            began, given = now, 0
        room = max(0, _A_MINUTE - given)
        given += len(ready[:room])
        if ready:
            yield ready[:room], len(ready[room:])
        await asyncio.sleep(_POLL_S)
