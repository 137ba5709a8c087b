"""What is looked at before anything changes."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

from pydantic import Field, ValidationInfo, field_validator

from relais.config.scalars import Commit, Day, Flag, Line, RepoPath, Text, Whole, Wrong, formed, nearest
from relais.config.section import MANY, TEXT_FORM, Patterns, Section, TimeLimit, distinct, named, short_form


class Reading(Section):
    """A document that whoever releases must have before their eyes."""

    short = TEXT_FORM
    path: RepoPath
    """The file, in the service's repository."""
    section: Line | None = None
    """The heading whose section is shown."""
    entries: Annotated[Whole, Field(ge=1, le=50)] | None = None
    """So many of the newest entries are shown."""

    _text = short_form("path")


class Git(Section):
    """What must be true of the repository."""

    branch: Annotated[str, formed(r"[^\s~^:?*\[\\-][^\s~^:?*\[\\]*", "the name of a branch", "write it as git branch shows it")] = "main"
    """The branch that is released, and that the documents are committed to."""
    clean: Flag = True
    """No tracked file is changed."""
    pushed: Flag = True
    """Every remote that has the branch has the commit."""
    commits: tuple[Commit, ...] = ()
    """Commits that must be part of what is released."""


class Check(Section):
    """A command that must succeed before anything is built."""

    name: Line
    """The check's name, in documents, waivers and the run."""
    run: Text
    """The command, run in the service's repository."""
    passed: Annotated[Whole, Field(ge=0)] | None = None
    """At least so many tests pass."""
    expect: Patterns = ()
    """Texts, or /regular expressions/, in the output."""
    required: Flag = True
    """Whether a failure blocks the release; it is told either way."""
    known: RepoPath | None = None
    """A file that lists what was red before, one name a line: only new failures block."""
    timeout: TimeLimit = timedelta(minutes=15)
    """The longest it may take."""


class Waiver(Section):
    """A red check let through by name; printed in every document."""

    check: Line
    """The check's name."""
    because: Line
    """Why."""
    by: Line
    """Who answers for it."""
    until: Day | None = None
    """The last day on which it holds."""


class Preflight(Section):
    """What is looked at before anything changes."""

    read: Annotated[tuple[Reading, ...], MANY] = ()
    """Documents to read first: checked, and shown in the run."""
    git: Git = Git()
    """What must be true of the repository."""
    setup: tuple[Text, ...] = ()
    """Commands that make a fresh clone ready for the checks."""
    checks: Annotated[tuple[Check, ...], distinct(named, "the check")] = ()
    """Commands that must succeed, run side by side."""
    waivers: Annotated[tuple[Waiver, ...], distinct(lambda waiver: str(waiver.check), "the waiver for")] = ()
    """Red checks let through by name."""

    @field_validator("waivers")
    @classmethod
    def _checks_exist(cls, waivers: tuple[Waiver, ...], info: ValidationInfo) -> tuple[Waiver, ...]:
        if "checks" in info.data:
            for index, waiver in enumerate(waivers):
                known_check(waiver.check, info.data["checks"], (index, "check"))
        return waivers


def known_check(name: str, checks: Iterable[Check], at: tuple[str | int, ...]) -> None:
    names = [check.name for check in checks]
    if name not in names:
        raise Wrong(f"there is no check named {name}", nearest(name, names) or "name a check of preflight.checks", at=at)
