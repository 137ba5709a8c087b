"""The list of releases: a table or headings, as the file has it, newest first; the former active entry steps down."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import quote

from relais.documents.facts import Facts
from relais.documents.lines import Lines, day_of, entries, oldest_first
from relais.documents.rendering import STATE_SIGNS, render
from relais.documents.words import Language, cell, code, inline, translate
from relais.model import Record

ARCHIVED = "⏸️ Archived"
_STATES = {state: f"{STATE_SIGNS[state]} {translate(state, 'en')}" for state in ("RolledBack", "Refused", "Held", "Interrupted", "Planned")}
_ACTIVE = re.compile(r"(?i)\b(active|actif|deployed|déployée?|serving|en service)\b")
_OVER = re.compile(r"[❌⏸↩⛔]|(?i:\b(not|non|archiv))")
_COLUMNS = {
    "date": "date", "revision": "revision", "révision": "revision", "image tag": "tag", "tag": "tag", "image": "tag",
    "description": "title", "changements": "title", "changes": "title", "titre": "title", "title": "title",
    "statut": "status", "status": "status", "état": "status",
    "commit": "commit", "doc": "doc", "rapport": "doc", "report": "doc", "agent": "by", "par": "by", "by": "by",
}  # fmt: skip
_RULE = re.compile(r" {0,3}\|?[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t\r]*")
_FIELD = re.compile(r"\s*(?:[-*+]\s+)?\*\*(?:statut|status|état)[ \u00a0]*(?:\*\*[ \u00a0]*:|:\*\*)[ \t\u00a0]*", re.IGNORECASE)


def index(old: bytes, record: Record, language: Language, report_path: str = "") -> bytes:
    """The list with this release in it; a release without a plan has no place in any list."""
    facts = Facts(record)
    if facts.plan is None:
        return old
    lines = Lines(old)
    shape: Table | Sections | None = Table.find(lines) or Sections.find(lines)
    link = _link(facts, report_path)
    if shape is None:
        _begin(lines, facts, language, link)
    elif not any(entry.ours for entry in shape.entries(facts)):
        shape.add(facts, language, link)
    shape = Table.find(lines) or Sections.find(lines)
    if shape is not None:
        _restate(lines, shape, facts, language)
    return bytes(lines)


@dataclass(frozen=True)
class Entry:
    """One release in the list, and where its status stands."""

    ours: bool
    revision: str
    line: int
    span: tuple[int, int]
    status: str

    @property
    def active(self) -> bool:
        return bool(_ACTIVE.search(self.status)) and not _OVER.search(self.status)


# -- statuses -----------------------------------------------------------------------------------------------------------


def _restate(lines: Lines, shape: "Table | Sections", facts: Facts, language: Language) -> None:
    found = list(shape.entries(facts))
    newest_first = list(reversed(found)) if shape.oldest_first else found
    ours = next((at for at, entry in enumerate(newest_first) if entry.ours), None)
    if ours is None:
        return
    active = shape.active(language)
    overtaken = any(entry.active for entry in newest_first[:ours])
    stated = {newest_first[ours]: ARCHIVED if facts.promoted and overtaken else active if facts.promoted else _status(facts)}
    if facts.promoted and not overtaken:
        stated |= {entry: ARCHIVED for entry in found if entry.active and not entry.ours}
    if facts.state == "RolledBack" and not overtaken:
        again = _serving_again(newest_first, facts)
        stated |= {entry: ARCHIVED for entry in found if again and entry.active and not entry.ours}
        stated |= {entry: active for entry in again}
    for entry, status in stated.items():
        if entry.line >= 0 and entry.status != status:
            line = lines[entry.line]
            lines.put(entry.line, entry.line + 1, [line[: entry.span[0]] + status + line[entry.span[1] :]])


def _serving_again(newest_first: list[Entry], facts: Facts) -> list[Entry]:
    """The entry of the one revision that got all of the traffic back."""
    back = facts.split.shares if facts.split else ()
    if len(back) != 1 or back[0].percent != 100:
        return []
    return [entry for entry in newest_first if entry.revision == back[0].revision and not entry.ours][:1]


def _status(facts: Facts) -> str:
    status = _STATES.get(facts.state, "❌ Failed" if facts.record.problem or facts.state else "❔ Not known")
    return f"{status} ({facts.share}%)" if facts.state == "Held" and facts.share is not None else status


# -- a table ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """A Markdown table of releases."""

    lines: Lines
    first: int  # row
    end: int
    columns: tuple[str, ...]  # what each column holds; empty where we do not know

    @classmethod
    def find(cls, lines: Lines) -> "Table | None":
        """The first table that has a revision or an image tag, and a date or a status."""
        inside = lines.quoted()
        for at in range(len(lines) - 1):
            if "|" not in lines[at] or inside[at] or not _RULE.fullmatch(lines[at + 1]) or lines[at].startswith("    "):
                continue
            columns = tuple(_COLUMNS.get(_bare(lines[at][b:e]).lower(), "") for b, e in _cells(lines[at]))
            if len(columns) == len(_cells(lines[at + 1])) and {"revision", "tag"} & {*columns} and {"date", "status"} & {*columns}:
                first = end = at + 2
                while end < len(lines) and "|" in lines[end] and not inside[end]:
                    end += 1
                return cls(lines, first, end, columns)
        return None

    def _row(self, at: int) -> dict[str, tuple[int, int]]:
        """Where in the line each column's text stands; of two columns of a kind, the first."""
        return {kind: span for kind, span in reversed(list(zip(self.columns, _cells(self.lines[at]), strict=False))) if kind}

    def _texts(self, at: int) -> dict[str, str]:
        return {kind: self.lines[at][b:e] for kind, (b, e) in self._row(at).items()}

    @property
    def oldest_first(self) -> bool:
        return oldest_first(day_of(self._texts(at).get("date", "")) for at in range(self.first, self.end))

    def active(self, language: Language) -> str:  # noqa: ARG002
        return "✅ Active (100%)"

    def entries(self, facts: Facts) -> Iterator[Entry]:
        wanted = {"date": facts.clock.day(facts.started), "revision": facts.revision, "tag": facts.tag}
        keys = [kind for kind in wanted if kind in self.columns]
        taken = False
        for at in range(self.first, self.end):
            row, texts = self._row(at), self._texts(at)
            ours = not taken and all(_bare(texts.get(kind, ""))[: 10 if kind == "date" else None] == _bare(wanted[kind]) for kind in keys)
            taken = taken or ours
            span = row.get("status")
            yield Entry(ours, _bare(texts.get("revision", "")), at if span else -1, span or (0, 0), texts.get("status", ""))

    def add(self, facts: Facts, language: Language, link: str) -> None:  # noqa: ARG002
        like = self._texts(self.first) if self.first < self.end else {}
        row = _row(facts, self.columns, link, like)
        at = self.end if self.oldest_first else self.first
        self.lines.put(at, at, [row])


def _row(facts: Facts, columns: tuple[str, ...], link: str, like: dict[str, str]) -> str:
    """A row with these columns; names in code and times in the date as in the row that is there."""
    title = inline(facts.title)

    def name(kind: str, text: str) -> str:
        return code(text) if "`" in like.get(kind, "`") else inline(text)

    timed = re.search(r"\d:\d\d", like.get("date", "")) is not None
    texts = {
        "date": facts.clock.moment(facts.started) if timed else facts.clock.day(facts.started),
        "revision": name("revision", facts.revision),
        "tag": name("tag", facts.tag),
        "title": title if "doc" in columns or not link else _titled(title, link),
        "commit": name("commit", facts.commit.short if facts.commit else ""),
        "doc": link,
        "by": inline(facts.by),
    }
    return "| " + " | ".join(cell(texts.get(kind, "")) for kind in columns) + " |"


def _begin(lines: Lines, facts: Facts, language: Language, link: str) -> None:
    """A table, under what there is; an empty file gets a title first."""

    def say(text: str) -> str:
        return translate(text, language)

    columns = ("date", "revision", "tag", "title", "status")
    heads = [say(text) for text in ("Date", "Revision", "Image Tag", "Description", "Status")]
    table = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", _row(facts, columns, link, {})]
    if lines.empty:
        sentence = say("Releases of {service}, newest first.").format(service=code(facts.service))
        lines.put(0, len(lines), [f"# 🚀 {say('Deployments')}", "", sentence, "", *table])
    else:
        lines.insert(len(lines), table)


def _cells(line: str) -> list[tuple[int, int]]:
    """Where each cell's text begins and ends, without the blanks around it; an escaped pipe is text."""
    bars, escaped = [], False
    for at, char in enumerate(line):
        if char == "|" and not escaped:
            bars.append(at)
        escaped = char == "\\" and not escaped
    begin = len(line) - len(line.lstrip())
    edges = [*(bars if bars[:1] == [begin] else [begin - 1, *bars]), *([] if bars and not line[bars[-1] + 1 :].strip() else [len(line)])]
    spans = []
    for left, right in pairwise(edges):
        text = line[left + 1 : right]
        start = left + 1 + len(text) - len(text.lstrip())
        spans.append((start, max(start, left + 1 + len(text.rstrip()))) if text.strip() else (min(left + 2, right), min(left + 2, right)))
    return spans


def _bare(text: str) -> str:
    """A cell's text without marks: code, bold, a link around it."""
    linked = re.fullmatch(r"\[(.*)\]\([^)]*\)", text.strip())
    return re.sub(r"[`*\\]", "", linked[1] if linked else text).strip()


# -- headings -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sections:
    """A list of releases as sections whose headings name the day."""

    lines: Lines
    level: int

    @classmethod
    def find(cls, lines: Lines) -> "Sections | None":
        found = entries(lines)
        return cls(lines, found[0].level) if found else None

    @property
    def oldest_first(self) -> bool:
        return oldest_first(day_of(heading.text) for heading in entries(self.lines))

    def active(self, language: Language) -> str:
        return f"✅ Deployed (100% {translate('traffic', language)})"

    def entries(self, facts: Facts) -> Iterator[Entry]:
        inside = self.lines.quoted()
        taken = False
        for heading in entries(self.lines):
            body = [at for at in range(heading.at + 1, heading.end) if not inside[at]]
            text = "\n".join(self.lines[at] for at in body)
            ours = (
                not taken
                and facts.clock.day(facts.started) in heading.text
                and code(facts.revision) in text and code(facts.tag) in text
            )
            taken = taken or ours
            revision = re.search(r"(?i)\*\*r[ée]vision\*\*[ \u00a0]*:\s*`?([\w.-]+)", text)
            line, span = next(((at, m.end()) for at in body if (m := _FIELD.match(self.lines[at]))), (-1, 0))
            status = self.lines[line][span:].rstrip() if line >= 0 else ""
            yield Entry(ours, revision[1] if revision else "", line, (span, span + len(status)), status)

    def add(self, facts: Facts, language: Language, link: str) -> None:
        shown = " + ".join(code(text.split(" ", 1)[0]) for text in facts.commits)
        text = render(
            "index.md.j2", facts.record, language, level=self.level, link=link, commits=shown,
            status=self.active(language) if facts.promoted else _status(facts),
        )
        found = entries(self.lines)
        at = self.lines.last_text(0, found[-1].end) if self.oldest_first else found[0].at
        self.lines.insert(at, text.rstrip("\n").split("\n"))




# -- links --------------------------------------------------------------------------------------------------------------


def _link(facts: Facts, report_path: str) -> str:
    """A link from the list to the report, as a relative path."""
    if not report_path:
        return ""
    folder = posixpath.dirname(str(facts.asked("documents").get("index") or "")) or "."
    target = quote(posixpath.relpath(report_path, folder), safe="/")
    return f"[{inline(posixpath.basename(report_path))}]({target})"


def _titled(title: str, link: str) -> str:
    return f"[{title}]{link[link.rindex('](') + 1 :]}"
