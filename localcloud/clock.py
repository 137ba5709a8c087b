"""The local cloud's clock: the machine's, moved by as much as somebody asked for (a cloud whose clock is off)."""

import datetime
import time

_offset_s = 0.0


def now() -> datetime.datetime:
    """The time now, in UTC."""
    return datetime.datetime.fromtimestamp(time.time() + _offset_s, datetime.UTC)


def time_ns() -> int:
    """Nanoseconds since the epoch."""
    return time.time_ns() + round(_offset_s * 1e9)


def put_off(seconds: float) -> None:
    """Have the clock be ahead of the machine's by so many seconds (behind, if negative); 0 puts it right."""
    global _offset_s  # noqa: PLW0603 - a process has one clock
    _offset_s = seconds


def offset_s() -> float:
    """By how many seconds the clock is ahead of the machine's."""
    return _offset_s
