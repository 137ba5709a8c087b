"""Lists in pages, as every List method gives them (https://google.aip.dev/158)."""

import re
from collections.abc import Sequence
from typing import TypeVar

from localcloud.wire import Code, Refusal

T = TypeVar("T")
_TOKEN = re.compile(r"[0-9]{1,9}")
_USUAL, _MOST = 100, 1000


def page(found: Sequence[T], size: int, token: str) -> tuple[Sequence[T], str]:
    """The page that is asked for, and the token of the next one ("" when it is the last)."""
    if token and not _TOKEN.fullmatch(token):
        raise Refusal(Code.INVALID_ARGUMENT, f"page_token {token[:40]!r} was not given out by this service.")
    if size < 0:
        raise Refusal(Code.INVALID_ARGUMENT, f"page_size is {size}; it must not be negative.")
    start = int(token or 0)
    end = start + min(size or _USUAL, _MOST)
    return found[start:end], str(end) if end < len(found) else ""
