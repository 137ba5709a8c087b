"""Regular expressions of the query languages: RE2's syntax, run by `regex`, which stops after a time and lets others run meanwhile.

https://github.com/google/re2/wiki/Syntax. RE2 takes a time that grows with the text alone; here a pattern that takes longer than a
moment is refused [approximated]. So are \\p{...}, and flags that begin in the middle; letters of other scripts have no case.
"""

import re
from collections.abc import Callable
from typing import Any, Final

import regex  # type: ignore[import-untyped]

_TOKEN: Final = re.compile(
    r"(?s)\\Q(?P<literal>.*?)(?:\\E|\Z)|\\x\{(?P<code>[0-9a-fA-F]+)\}|\\(?P<escaped>.)|\[:(?P<negated>\^?)(?P<posix>\w+):\]"
    r"|\(\?P?(?P<name><[A-Za-z_]\w*>)|(?P<flags>\(\?(?:[ims]*|[ims]*-[ims]+)[:)])|(?P<group>\(\?)"
    r"|(?P<possessive>(?:[*+?]|\{\d+(?:,\d*)?\})\+)|\{(?P<low>\d+)(?:,(?P<high>\d*))?\}|(?P<other>.)"
)
_POSIX: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ", "upper": "A-Z",
    "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_ESCAPES: Final = frozenset("AbBdDsSwWafnrtvxz0")  # the letters and digits that may follow a backslash, and mean the same in both
_MOST: Final = 1000  # repetitions, multiplied where one is in another
_MOST_COPIES: Final = 10_000
_LONGEST_S: Final = 0.25  # for one text

Search = Callable[[str], bool]


class TooSlow(ValueError):
    """A regular expression that takes too long for one of the texts."""


def search(pattern: str) -> Search:
    """Whether the pattern is somewhere in a text; ValueError says what is wrong with it."""
    return _run(pattern, _compiled(pattern).search)


def full_match(pattern: str) -> Search:
    """Whether the pattern is the whole of a text; ValueError says what is wrong with it."""
    return _run(pattern, _compiled(pattern).fullmatch)


def _run(pattern: str, match: Callable[..., object]) -> Search:
    def found(text: str) -> bool:
        try:
            return match(text, timeout=_LONGEST_S, concurrent=True) is not None
        except TimeoutError:
            raise TooSlow(f"The regular expression {_short(pattern)} takes too long here; make it simpler.") from None

    return found


def _compiled(pattern: str) -> Any:
    multiline = re.match(r"\(\?[is]*m[ims]*\)", pattern) is not None
    parts: list[str] = []
    in_class, opened, at = False, 0, 0
    repeated = [1]  # how often the most repeated part is repeated, in each of the groups that are open
    last, copies = 1, 0  # the same of what stands before; how many copies all repetitions make
    while at < len(pattern):
        found = _TOKEN.match(pattern, at)
        assert found is not None  # any character is a token
        at, token = found.end(), found[0]
        if in_class and not (found["literal"] or found["code"] or found["escaped"] or found["posix"]):
            at, token = found.start() + 1, token[0]
            in_class = token != "]" or found.start() == opened
            parts.append("\\[" if token == "[" else token)
            continue
        if token == "[":
            in_class, opened = True, at + (pattern[at : at + 1] == "^")
            parts.append("[^" if opened > at else "[")
            last, at = 1, opened
            continue
        parts.append(_translated(pattern, found, in_class=in_class, multiline=multiline))
        if token.startswith("("):
            repeated += [1] if token[-1] != ")" else []
        elif token == ")" and len(repeated) > 1:
            last = repeated.pop()
        elif found["low"]:
            last *= max(int(found["low"]), int(found["high"] or 0))
            copies += last
        else:
            last = last if token in "*+?" else 1
        repeated[-1] = max(repeated[-1], last)
        if last > _MOST:
            raise ValueError(f"The regular expression {_short(pattern)} repeats more than {_MOST} times, which RE2 does not do.")
        if copies > _MOST_COPIES:  # [approximated: where RE2 says that a pattern is too large]
            raise ValueError(f"The regular expression {_short(pattern)} is too large: its repetitions make too many copies.")
    try:
        return regex.compile("".join(parts), regex.ASCII)
    except (regex.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{_short(pattern)} is not a regular expression: {error}.") from None


def _translated(pattern: str, found: re.Match[str], *, in_class: bool, multiline: bool) -> str:
    token, escaped = found[0], found["escaped"] or ""
    if found["literal"] is not None:
        return re.escape(found["literal"])
    if found["code"]:
        return re.escape(chr(min(int(found["code"], 16), 0x10FFFF)))
    class_elsewhere = found["posix"] and (not in_class or found["posix"] not in _POSIX or found["negated"])
    late_flags = found["flags"] and token.endswith(")") and found.start() > 0
    other_escape = escaped.isalnum() and escaped not in _ESCAPES
    if class_elsewhere or late_flags or other_escape or found["group"] or found["possessive"]:
        raise _not_served(pattern, token)
    if found["posix"]:
        return _POSIX[found["posix"]]
    if found["name"]:
        return f"(?P{found['name']}"
    if token == r"\z" or (token == "$" and not multiline):  # RE2's $ is the end of the text, and no line break before it
        return r"\Z"
    return r"\{" if token == "{" else token


def _short(pattern: str) -> str:
    return repr(pattern if len(pattern) <= 200 else f"{pattern[:200]}...")


def _not_served(pattern: str, token: str) -> ValueError:
    return ValueError(f"The regular expression {_short(pattern)} uses {token!r}, which RE2 does not have (or which is not served here).")
