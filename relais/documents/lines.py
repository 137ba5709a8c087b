"""A document as lines that go back byte for byte: invalid UTF-8, a BOM, CRLF, stray CR and a missing final newline included."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from itertools import pairwise

_BLANK = " \t\r"
_FENCE = re.compile(r"\s*(`{3,}|~{3,})(.*)")
_HEADING = re.compile(r" {0,3}(#{1,6})(?=[ \t\r]|\Z)(.*)", re.DOTALL)
_ISO = re.compile(r"(?<!\d)(\d{4})-(\d{2})-(\d{2})(?:[ T](\d{2}):(\d{2}))?(?!\d)")


@dataclass(frozen=True)
class Heading:
    """An ATX heading, and the lines of its section: from it up to the next heading of its level or above."""

    at: int
    level: int
    text: str
    end: int


class Lines:
    """The lines of a document, and the edits on them; line numbers count from 0."""

    def __init__(self, content: bytes) -> None:
        text = content.decode("utf-8", "surrogateescape")
        self._bom = "\ufeff" if text.startswith("\ufeff") else ""
        self._lines: list[str] = re.findall(r"[^\n]*\n|[^\n]+", text[len(self._bom) :])
        crlf = sum(line.endswith("\r\n") for line in self._lines)
        self._eol = "\r\n" if crlf * 2 > sum(line.endswith("\n") for line in self._lines) else "\n"

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, at: int) -> str:
        """The line without its end."""
        line = self._lines[at]
        return line.removesuffix("\n").removesuffix("\r") if line.endswith("\r\n") else line.removesuffix("\n")

    def __iter__(self) -> Iterator[str]:
        return (self[at] for at in range(len(self)))

    def __bytes__(self) -> bytes:
        return (self._bom + "".join(self._lines)).encode("utf-8", "surrogateescape")

    def blank(self, at: int) -> bool:
        return not self[at].strip(_BLANK)

    @property
    def empty(self) -> bool:
        """Whether there is nothing to read."""
        return all(self.blank(at) for at in range(len(self)))

    # -- edits

    def put(self, begin: int, end: int, new: Sequence[str]) -> None:
        """Replace the lines begin..end; a line that stays the same keeps its own end, and so does the file."""
        old, last = self._lines[begin:end], len(new) - 1
        bare = end == len(self) > 0 and not self._lines[-1].endswith("\n")
        if bare and not old and new:
            self._lines[-1] += self._eol
        made = []
        for at, line in enumerate(new):
            if at < len(old) and self[begin + at] == line and (old[at].endswith("\n") != (bare and at == last)):
                made.append(old[at])
            else:
                made.append(line if bare and at == last else line + self._eol)
        self._lines[begin:end] = made

    def insert(self, at: int, new: Sequence[str]) -> None:
        """Put a paragraph there, with a blank line on both sides where other text is."""
        before = [""] if at > 0 and not self.blank(at - 1) else []
        after = [""] if at < len(self) and not self.blank(at) else []
        self.put(at, at, [*before, *new, *after])

    # -- structure

    def quoted(self) -> list[bool]:
        """Which lines are fenced code or a comment of several lines; what is opened and never closed is neither."""
        inside = [False] * len(self)
        open_ended: set[str] = set()
        at = 0
        while at < len(self):
            close = self._comment_end(at)
            fence = _FENCE.match(self[at])
            if close is None and fence and fence[1] not in open_ended and not (fence[1][0] == "`" and "`" in fence[2]):
                close = self._fence_end(at, fence[1])
                if close is None:
                    open_ended.add(fence[1])
            if close is not None:
                inside[at : close + 1] = [True] * (close + 1 - at)
                at = close
            at += 1
        return inside

    def _comment_end(self, at: int) -> int | None:
        if not self[at].lstrip().startswith("<!--") or "-->" in self[at]:
            return None
        later = next((n for n in range(at + 1, len(self)) if "<!--" in self[n] or "-->" in self[n]), None)
        return None if later is None or "<!--" in self[later] else later

    def _fence_end(self, at: int, mark: str) -> int | None:
        ends = (n for n in range(at + 1, len(self)) if (m := _FENCE.match(self[n])) and m[1].startswith(mark) and not m[2].strip())
        return next(ends, None)

    def headings(self) -> tuple[Heading, ...]:
        inside = self.quoted()
        found = [(at, match) for at, line in enumerate(self) if not inside[at] and (match := _HEADING.match(line))]
        made = []
        for index, (at, match) in enumerate(found):
            level = len(match[1])
            end = next((other for other, m in found[index + 1 :] if len(m[1]) <= level), len(self))
            made.append(Heading(at=at, level=level, text=_title(match[2]), end=end))
        return tuple(made)

    def last_text(self, begin: int, end: int) -> int:
        """The end of begin..end without its trailing blank lines, and rules between blank lines."""
        while end > begin and (self.blank(end - 1) or (self[end - 1].strip() == "---" and end - 1 > begin and self.blank(end - 2))):
            end -= 1
        return end


def _title(text: str) -> str:
    """A heading's text without the marks that may close it."""
    title = text.strip()
    open_ended = title.rstrip("#")
    return title if open_ended and not open_ended[-1].isspace() else open_ended.strip()


def day_of(text: str) -> tuple[int, ...] | None:
    """The first day that a text names, with the minute if there is one."""
    found = _ISO.search(text)
    if not found:
        return None
    try:
        date(int(found[1]), int(found[2]), int(found[3]))
    except ValueError:
        return None
    return tuple(int(part) for part in found.groups(default="0"))


def entries(lines: Lines) -> tuple[Heading, ...]:
    """The sections whose headings name a day, at the level that most of them have."""
    found = [heading for heading in lines.headings() if day_of(heading.text)]
    levels = [heading.level for heading in found]
    level = min(set(levels), key=lambda n: (-levels.count(n), n), default=0)
    return tuple(heading for heading in found if heading.level == level)


def oldest_first(days: Iterable[tuple[int, ...] | None]) -> bool:
    """Whether entries in this order go from the oldest to the newest; newest first where nothing tells."""
    known = [day for day in days if day]
    pairs = list(pairwise(known))
    return sum(a < b for a, b in pairs) > sum(a > b for a, b in pairs)
