"""Regular expressions of the Logging query language: RE2's syntax, run by Python's `re`; what RE2 refuses is refused.

https://github.com/google/re2/wiki/Syntax. [approximated] \\p{...} is refused, and so are flags in the middle; letters of other scripts
have no case.
"""

import re
from typing import Final

_TOKEN: Final = re.compile(
    r"(?s)\\Q(?P<literal>.*?)(?:\\E|\Z)|\\x\{(?P<code>[0-9a-fA-F]+)\}|\\(?P<escaped>.)|\[:(?P<negated>\^?)(?P<posix>\w+):\]"
    r"|(?P<group>\(\?(?:<?[=!]|P[=>]|[>(#]))|(?P<possessive>(?:[*+?]|\{\d+(?:,\d*)?\})\+)|\{(?P<low>\d+)(?:,(?P<high>\d*))?\}|(?P<other>.)"
)
_POSIX: Final = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": r"\x00-\x7f", "blank": r"\t ", "cntrl": r"\x00-\x1f\x7f", "digit": "0-9",
    "graph": "!-~", "lower": "a-z", "print": " -~", "punct": r"!-/:-@\[-`{-~", "space": r"\t\n\v\f\r ", "upper": "A-Z",
    "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip
_MOST: Final = 1000  # repetitions


def compile(pattern: str) -> re.Pattern[str]:
    """The pattern as Python has it; ValueError says what is wrong."""
    multiline = re.match(r"\(\?[a-z]*m[a-z]*\)", pattern) is not None
    parts: list[str] = []
    in_class, opened, at = False, 0, 0
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
            at = opened
            continue
        parts.append(_translated(pattern, found, in_class=in_class, multiline=multiline))
    try:
        return re.compile("".join(parts), re.ASCII)
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(f"{pattern!r} is not a regular expression: {error}.") from None


def _translated(pattern: str, found: re.Match[str], *, in_class: bool, multiline: bool) -> str:
    token = found[0]
    if found["literal"] is not None:
        return re.escape(found["literal"])
    if found["code"]:
        return re.escape(chr(min(int(found["code"], 16), 0x10FFFF)))
    if found["posix"]:
        if not in_class or found["posix"] not in _POSIX or found["negated"]:
            raise _not_served(pattern, token)
        return _POSIX[found["posix"]]
    if found["group"] or found["possessive"] or (found["escaped"] or "") in {*"123456789ZGCpPX"}:
        raise _not_served(pattern, token)
    if found["escaped"] == "z":
        return r"\Z"
    if found["low"] and max(int(found["low"]), int(found["high"] or 0)) > _MOST:
        raise ValueError(f"The regular expression {pattern!r} repeats more than {_MOST} times, which RE2 does not do.")
    if token == "$" and not multiline:
        return r"\Z"  # RE2's $ is the end of the text, and no line break before it
    return token


def _not_served(pattern: str, token: str) -> ValueError:
    return ValueError(f"The regular expression {pattern!r} uses {token!r}, which RE2 does not have (or which is not served here).")
