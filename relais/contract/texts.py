"""How findings quote what came: short, on one line, without control characters."""

import json
import re

_ANSI = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")


def plain(text: str) -> str:
    """Without the colours and cursor moves of a terminal."""
    return _ANSI.sub("", text).replace("\r\n", "\n").replace("\r", "\n")


def one_line(text: str, most: int = 160) -> str:
    """The text on one line, cut where it is long."""
    line = " ".join("".join(c if c.isprintable() else " " for c in text[: 4 * most]).split())
    return line if len(line) <= most else line[: most - 1] + "…"


def quoted(value: object, most: int = 80) -> str:
    """A JSON value as it would be written, cut where it is long."""
    return one_line(json.dumps(value, ensure_ascii=False, default=str), most)


def last_lines(text: str, most: int = 25, width: int = 300) -> str:
    """The end of an output: where tools say what went wrong."""
    return "\n".join(line.rstrip()[:width] for line in plain(text).rstrip().split("\n")[-most:])


def number(value: float) -> str:
    return f"{value:g}"


def seconds(value: float) -> str:
    return f"{value:.2f} s" if value < 10 else f"{value:.0f} s"
