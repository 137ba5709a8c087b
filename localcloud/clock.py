"""The local cloud's clock: the machine's, moved by as much as somebody asked for (a cloud whose clock is off)."""

import datetime
import time
from collections.abc import Callable

_offset_s = 0.0
_handed_out: Callable[[], object] = int  # does nothing


def now() -> datetime.datetime:
    """The time now, in UTC."""
    _handed_out()
    return datetime.datetime.fromtimestamp(time.time() + _offset_s, datetime.UTC)


def time_ns() -> int:
    """Nanoseconds since the epoch."""
    _handed_out()
    return time.time_ns() + round(_offset_s * 1e9)


def put_off(seconds: float, handed_out: Callable[[], object] = int) -> None:
    """Have the clock be ahead of the machine's by so many seconds (behind, if negative); 0 puts it right.

    `handed_out` is called whenever somebody is given the time.
    """
    global _offset_s, _handed_out
    _offset_s, _handed_out = seconds, handed_out


def offset_s() -> float:
    """By how many seconds the clock is ahead of the machine's."""
    return _offset_s
