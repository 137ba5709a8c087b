"""The page on which people tell each other where they are: one named section, its fields updated in place."""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from relais.documents.facts import Facts
from relais.documents.lines import Heading, Lines
from relais.documents.rendering import STATE_SIGNS, render
from relais.documents.words import Language, code, inline, translate
from relais.model import Record

_LABEL = re.compile(
    r"(?P<lead> {0,3}(?:[-*+] +)?)(?P<head>\*\*(?P<label>[^*]+?)[ \u00a0]*(?:\*\*[ \u00a0]*:|:\*\*))(?P<rest>.*)", re.DOTALL
)
_ITEM = re.compile(r"\s*([-*+]|\d+[.)])\s")
_KINDS = {
    "dernier sync": "sync", "dernière sync": "sync", "last sync": "sync", "statut": "status", "status": "status", "état": "status",
    "tests / vérifications": "tests", "tests / checks": "tests", "tests": "tests", "vérifications": "tests",
    "next": "next", "next steps": "next", "prochaines étapes": "next",
}  # fmt: skip


@dataclass(frozen=True)
class Field:
    """A field of a section: where its lines are, and what they say."""

    kind: str  # empty for a field that is not ours
    begin: int
    end: int
    lead: str  # blanks and bullet
    head: str  # the label, with its colon
    rest: str
    inner: tuple[str, ...] = ()


def sync(old: bytes, record: Record, language: Language, section: str, report_path: str = "") -> bytes:
    """The page with this release in the named section; what else is in the section stays."""
    lines = Lines(old)
    page = Lines(_page(record, language, report_path).encode())
    wanted = _heading(section)
    if lines.empty:
        lines.put(0, len(lines), [f"# 📋 {translate('Synchronisation', language)}"])
    if _find(lines, wanted) is None:
        lines.insert(len(lines), [f"## {inline(section)}", "", *page])
    after: int | None = None
    for field in _fields(page, 0, len(page)):
        begin, end = _area(lines, wanted)
        found = list(_fields(lines, begin, end))
        ours = next((f for f in found if f.kind == field.kind), None)
        first = next((f.begin for f in found if f.kind), None) if after is None else after
        dressed = _replacing(ours, field) if ours else _beside(next(iter(found), None), field)
        if ours:
            lines.put(ours.begin, ours.end, dressed)
        elif first is not None and all(f.lead.strip() for f in found):
            lines.put(first, first, dressed)
        else:
            lines.insert(lines.last_text(begin, end) if first is None else first, dressed)
        after = next(f.end for f in _fields(lines, *_area(lines, wanted)) if f.kind == field.kind)
    return bytes(lines)


# -- the section --------------------------------------------------------------------------------------------------------


def _heading(section: str) -> str:
    """The section's name as a heading gives it back."""
    return Lines(f"## {inline(section)}".encode()).headings()[0].text


def _find(lines: Lines, wanted: str) -> Heading | None:
    """The heading with that text; else the first that holds it, such as one with an emoji before it."""
    headings = lines.headings()
    exact = [heading for heading in headings if heading.text.casefold() == wanted.casefold()]
    return next(iter(exact or [heading for heading in headings if wanted.casefold() in heading.text.casefold()]), None)


def _area(lines: Lines, wanted: str) -> tuple[int, int]:
    """The lines of the section itself: from its heading to the next one of any level."""
    found = _find(lines, wanted)
    begin = found.at + 1 if found else 0
    return begin, next((heading.at for heading in lines.headings() if heading.at >= begin), len(lines))


# -- its fields ---------------------------------------------------------------------------------------------------------


def _fields(lines: Lines, begin: int, end: int) -> Iterator[Field]:
    """Bold labels that stand as deep as the first one; what is nested in them is theirs."""
    inside = lines.quoted()
    depth: int | None = None
    at = begin
    while at < end:
        found = None if inside[at] else _LABEL.fullmatch(lines[at])
        if found and depth in (None, _indent(lines[at])):
            depth = _indent(lines[at])
            stop = _end(lines, at, end)
            inner = tuple(lines[n] for n in range(at + 1, stop))
            yield Field(_kind(found["label"]), at, stop, found["lead"], found["head"], found["rest"], inner)
            at = stop
        else:
            at += 1


def _end(lines: Lines, at: int, end: int) -> int:
    """The end of the field that begins there: a bullet owns what is deeper, a bare label with no text the list under it."""
    depth = _indent(lines[at])
    label = _LABEL.fullmatch(lines[at])
    listing = label is not None and not label["lead"].strip() and not label["rest"].strip()
    stop = at + 1
    while stop < end:
        line = lines[stop]
        listed = listing and _ITEM.match(line) is not None and not _LABEL.fullmatch(line)
        if not lines.blank(stop) and _indent(line) <= depth and not listed:
            break
        stop += 1
    while lines.blank(stop - 1):
        stop -= 1
    return stop


def _kind(label: str) -> str:
    text = " ".join(label.replace("\u00a0", " ").casefold().split())
    return "session" if text.split(" ")[0] == "session" else _KINDS.get(text, "")


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _replacing(old: Field, new: Field) -> list[str]:
    """The new field with the indent, the bullet and the label of the old one; a session's label is new each time."""
    return _dressed(old.lead, new.head if new.kind == "session" else old.head, new)


def _beside(other: Field | None, new: Field) -> list[str]:
    """The new field as a bullet, as deep as the fields that are there."""
    lead = new.lead if other is None else other.lead if other.lead.strip() else other.lead + new.lead
    return _dressed(lead, new.head, new)


def _dressed(lead: str, head: str, new: Field) -> list[str]:
    return [f"{lead}{head}{new.rest}", *(" " * len(lead) + line[2:] for line in new.inner)]


# -- what it says -------------------------------------------------------------------------------------------------------


def _page(record: Record, language: Language, report_path: str) -> str:
    facts = Facts(record)
    start, end, clock = facts.started, record.ended, facts.clock
    until = f"-{clock.minute(end)}" if end else ""
    span = f"{clock.day(start)} ({clock.minute(start)}{until})"
    return render("sync.md.j2", record, language, status=_status(facts, language), span=span, report_path=report_path)


def _status(facts: Facts, language: Language) -> str:
    """Revision X stable (title); where it did not get there, what became of it and who serves."""

    def say(text: str) -> str:
        return translate(text, language)

    name, title = code(facts.revision) or say("not known"), inline(facts.title) or say("not known")
    if facts.promoted:
        return f"{say('Revision')} {name} {say('stable')} ({title})"
    state = say(facts.state) if facts.state in STATE_SIGNS else inline(facts.state) or say("not known")
    shares = ", ".join(f"{code(share.revision)} {share.percent} %" for share in facts.split.shares) if facts.split else ""
    colon = " : " if language == "fr" else ": "
    return f"{say('Revision')} {name}{colon}{state}; {say('Traffic').lower()}{colon}{shares or say('not known')}"
