"""Regular expressions of the query languages, by RE2 itself (https://github.com/google/re2/wiki/Syntax)."""

from collections.abc import Callable
from typing import Any, Final

import re2  # type: ignore[import-untyped]

_MOST_BYTES: Final = 2**19  # of a compiled pattern: about 40 000 steps [approximated: Google does not tell its own bound]

Search = Callable[[str], bool]


def search(pattern: str) -> Search:
    """Whether the pattern is somewhere in a text, in a time that grows with the text alone; ValueError says what is wrong with it."""
    find = _compiled(pattern).search
    return lambda text: find(text) is not None


def full_match(pattern: str) -> Search:
    """Whether the pattern is the whole of a text; ValueError says what is wrong with it."""
    match = _compiled(pattern).fullmatch
    return lambda text: match(text) is not None


def _compiled(pattern: str) -> Any:
    options = re2.Options()
    options.max_mem = _MOST_BYTES
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except re2.error as error:
        (reason,) = error.args
        short = repr(pattern if len(pattern) <= 200 else f"{pattern[:200]}...")
        raise ValueError(f"{short} is not a regular expression: {reason.decode(errors='replace')[:200]}.") from None
