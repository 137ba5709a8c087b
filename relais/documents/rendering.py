"""Templates made into text: one environment, one set of filters, bound to a record's language and clock."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context

from relais.documents import words
from relais.documents.facts import Facts
from relais.documents.words import FRENCH, Language, cell, code, inline, translate
from relais.model import SIGNS, Commit, Record, Split

STATE_SIGNS = {"Promoted": "✅", "RolledBack": "↩️", "Refused": "⛔", "Held": "✋", "Interrupted": "⚠️", "Planned": "📋", "Failed": "❌"}


@cache
def environment() -> Environment:
    """Undefined names are errors: a document with a hole in it is not written."""
    made = Environment(
        loader=PackageLoader("relais", "templates"), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    made.filters |= {
        "inline": inline, "code": code, "cell": cell, "block": words.block, "duration": words.duration, "size": words.size,
        "commit": _commit, "split": _split, "known": _known, "said": _said, "second": _second, "moment": _moment, "full": _full,
    }
    return made


@pass_context
def _known(context: Context, text: str) -> str:
    return text or str(context["unknown"])


@pass_context
def _said(context: Context, text: str) -> str:
    """A name in the document's language where it is one of ours, else as it is."""
    return str(context["_"](text)) if text in FRENCH else inline(text)


@pass_context
def _second(context: Context, at: datetime) -> str:
    return str(context["facts"].clock.second(at))


@pass_context
def _moment(context: Context, at: datetime) -> str:
    return str(context["facts"].clock.moment(at))


@pass_context
def _full(context: Context, at: datetime) -> str:
    return str(context["facts"].clock.full(at))


def render(name: str, record: Record, language: Language, **more: Any) -> str:
    """The template's text for a record; one final newline, never two blank lines outside of code blocks."""
    facts = Facts(record)

    def say(text: str) -> str:
        return translate(text, language)

    text = environment().get_template(name).render(
        _=say, unknown=say("not known"), colon=" : " if language == "fr" else ": ", signs=SIGNS, language=language,
        record=record, facts=facts, state_sign=STATE_SIGNS.get(facts.state, "❔"), session=session(facts),
        traffic=traffic(facts, say), health=health(facts, say), **more,
    )
    return tidy(text)


def _commit(commit: Commit | str | None) -> str:
    """`588c5dc` subject."""
    sha, _, subject = ("" if commit is None else str(commit)).partition(" ")
    return f"{code(sha)} {inline(subject)}".strip()


def _split(split: Split) -> str:
    return ", ".join(f"{code(share.revision)} {share.percent} %" for share in split.shares) or "0 %"


def session(facts: Facts) -> str:
    """2025-10-09, 14:02-14:41 CEST (39 min 12 s); the end only if it was seen."""
    start, end, clock = facts.started, facts.record.ended, facts.clock
    if end is None:
        return clock.full(start)
    zone = clock.full(end).rsplit(" ", 1)[1]
    until = clock.minute(end) if clock.day(start) == clock.day(end) else clock.moment(end)
    return f"{clock.moment(start)}-{until} {zone} ({words.duration(max(0.0, (end - start).total_seconds()))})"


def traffic(facts: Facts, say: Callable[[str], str]) -> str:
    """Who serves in the end, in the seed's words where all of it is the new revision's."""
    if not facts.moves and not facts.promoted and not facts.put_back:
        return say("unchanged") if facts.record.ended or facts.state in ("Refused", "Planned") else say("not known")
    if facts.split is None:
        return say("not known")
    return f"100 % {say('to the new revision')}" if facts.share == 100 else _split(facts.split)


def health(facts: Facts, say: Callable[[str], str]) -> str:
    outcome = facts.health
    if outcome is None:
        return say("not known")
    return f"{SIGNS[outcome]} " + say({"passed": "Healthy", "failed": "Not healthy"}.get(outcome, "Ready, not verified"))


_FENCE = re.compile(r"\s*(`{3,})")


def tidy(text: str) -> str:
    """No runs of blank lines outside of code blocks, none at the ends."""
    kept: list[str] = []
    fence = ""
    for line in text.strip("\n").split("\n"):
        mark = _FENCE.match(line)
        if fence:
            fence = "" if mark and mark[1] == fence and line.strip() == fence else fence
        elif mark:
            fence = mark[1]
        elif not line.strip() and kept and not kept[-1].strip():
            continue
        kept.append(line if fence or (line.endswith("  ") and line.strip()) else line.rstrip())
    return "\n".join(kept) + "\n"


