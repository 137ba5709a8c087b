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
        dressed = _dressed(field, ours or next(iter(found), None))
        if ours:
            lines.put(ours.begin, ours.end, dressed)
        elif first is not None:
            lines.put(first, first, dressed)
        else:
            lines.insert(lines.last_text(begin, end), dressed)
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
    """The end of the field that begins there: a bullet owns what is deeper, a bare label the list under it."""
    bulleted, depth = _ITEM.match(lines[at]) is not None, _indent(lines[at])
    stop = at + 1
    while stop < end:
        line = lines[stop]
        label = _LABEL.fullmatch(line)
        deeper = _indent(line) > depth
        listed = not bulleted and _ITEM.match(line) is not None and not (label and _kind(label["label"]))
        if not lines.blank(stop) and not deeper and not listed:
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


def _dressed(new: Field, like: Field | None) -> list[str]:
    """A field of ours in the indents, bullet and label of the one that it replaces or stands beside."""
    lead = like.lead if like else new.lead
    same = like is not None and like.kind == new.kind and new.kind != "session"
    head = like.head if like and same else new.head
    inner = lead if not lead.strip() else " " * len(lead)
    return [f"{lead}{head}{new.rest}", *(inner + line[2:] for line in new.inner)]


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
