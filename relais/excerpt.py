"""The part of a Markdown document that matters: a section by its heading, or the newest entries of a journal."""

import re
from collections.abc import Iterator
from difflib import get_close_matches

MOST = 4000  # characters that are shown in a run

_HEADING = re.compile(r"(#{1,6})\s+(.*?)\s*#*\s*$")


def excerpt(content: str, section: str | None = None, entries: int | None = None) -> str:
    """The text of `section`, of the first `entries` entries, or of the whole; LookupError where the section is not there."""
    lines = content.lstrip("\ufeff").splitlines()
    if section is not None:
        lines = _section(lines, section)
    if entries is not None:
        lines = _entries(lines, entries)
    text = "\n".join(lines).strip()
    return text if len(text) <= MOST else text[:MOST].rstrip() + "\n[...]"


def _headings(lines: list[str]) -> Iterator[tuple[int, int, str]]:
    """Line number, level and text of each heading that is not inside fenced code."""
    fence = ""
    for number, line in enumerate(lines):
        mark = line.lstrip()[:3]
        if mark in ("```", "~~~"):
            fence = "" if fence == mark else fence or mark
        elif not fence and (found := _HEADING.match(line)):
            yield number, len(found[1]), found[2]


def _section(lines: list[str], wanted: str) -> list[str]:
    headings = list(_headings(lines))
    for position, (begin, level, title) in enumerate(headings):
        if wanted.lower() in title.lower():
            end = next((number for number, depth, _ in headings[position + 1 :] if depth <= level), len(lines))
            return lines[begin:end]
    close = get_close_matches(wanted, [title for _, _, title in headings], n=1, cutoff=0.3)
    raise LookupError(f"there is no section {wanted!r}" + (f"; the nearest is {close[0]!r}" if close else ""))


def _entries(lines: list[str], wanted: int) -> list[str]:
    """The first `wanted` entries: an entry is a heading of the level that occurs most often, up to the next."""
    headings = list(_headings(lines))
    if not headings:
        return lines
    levels = [level for _, level, _ in headings]
    common = max(set(levels), key=lambda level: (levels.count(level), -level))
    begins = [number for number, level, _ in headings if level == common]
    end = begins[wanted] if wanted < len(begins) else len(lines)
    return lines[begins[0] : end]
