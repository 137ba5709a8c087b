"""The journal: one entry a release, at the end of the file where the newest entries are."""

import re
from collections.abc import Sequence

from relais.documents.facts import Facts
from relais.documents.lines import Heading, Lines, day_of, entries, oldest_first
from relais.documents.rendering import render
from relais.documents.words import Language, inline, translate
from relais.model import Record


def journal(old: bytes, record: Record, language: Language, report_path: str = "") -> bytes:
    """The journal with this release's entry; an entry of the same release is written again where it is."""
    lines, facts = Lines(old), Facts(record)
    found, ours = entries(lines), _ours(lines, record)

    def entry(level: int, heading: str) -> list[str]:
        text = render("journal.md.j2", record, language, level=level, heading=heading, report_path=report_path)
        return text.rstrip("\n").split("\n")

    if ours:
        lines.put(ours.at, lines.last_text(ours.at, ours.end), entry(ours.level, ours.text))
    elif lines.empty:
        title, order = f"# 📓 {translate('Journal', language)}", translate("Newest entries first.", language)
        lines.put(0, len(lines), [title, "", order, "", *entry(2, _heading(facts, language, found))])
    elif not found:
        lines.insert(len(lines), entry(2, _heading(facts, language, found)))
    else:
        new, rule = entry(found[0].level, _heading(facts, language, found)), _ruled(lines, found)
        if oldest_first(day_of(heading.text) for heading in found):
            lines.insert(lines.last_text(0, found[-1].end), ["---", "", *new] if rule else new)
        else:
            lines.insert(found[0].at, [*new, "", "---"] if rule else new)
    return bytes(lines)


def _ours(lines: Lines, record: Record) -> Heading | None:
    """The section that carries this release's id right under its heading."""
    mark = f"<!-- relais: {record.id} -->"
    return next((heading for heading in lines.headings() if heading.at + 1 < len(lines) and lines[heading.at + 1].strip() == mark), None)


def _heading(facts: Facts, language: Language, found: Sequence[Heading]) -> str:
    """[2025-10-09 14:41] - Agent: Codex, where the file has it so; otherwise 2025-10-09 - Deployment of what (by whom)."""
    at, by = facts.record.ended or facts.started, inline(facts.by) or translate("not known", language)
    if found and re.match(r"\[\d{4}-\d{2}-\d{2}", found[0].text):
        day = facts.clock.moment(at) if re.match(r"\[\S+[ T]\d{2}:\d{2}", found[0].text) else facts.clock.day(at)
        return f"[{day}] - Agent: {by}"
    return f"{facts.clock.day(at)} - {translate('Deployment', language)} {inline(facts.title) or translate('not known', language)} ({by})"


def _ruled(lines: Lines, found: Sequence[Heading]) -> bool:
    """Whether a rule stands between the entries."""
    return len(found) > 1 and next((lines[at].strip() for at in range(found[1].at - 1, found[0].at, -1) if lines[at].strip()), "") == "---"
