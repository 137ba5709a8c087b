"""The record of a release, from which every document is rendered."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

from pydantic import ConfigDict, Field

from relais.model.made import Built, Candidate, Move, Pushed, Verdict, Window
from relais.model.planned import Plan
from relais.model.serving import Revision
from relais.model.values import Finding, Value


class Timing(Value):
    """How long a stage took, in seconds, against the median of earlier releases (None: no earlier release)."""

    stage: str
    seconds: float
    median: float | None = None

    @property
    def overrun(self) -> bool:
        return self.median is not None and self.seconds > max(1.5 * self.median, self.median + 5)


class Problem(Value):
    """What stopped the release, as its error said it."""

    kind: str
    what: str
    where: str = ""
    remedy: str = ""

    @classmethod
    def of(cls, error: BaseException) -> Problem:
        """From any exception; one of ours keeps its three parts."""
        what = str(getattr(error, "what", "") or error or type(error).__name__)
        return cls(kind=type(error).__name__, what=what, where=str(getattr(error, "where", "")), remedy=str(getattr(error, "remedy", "")))


class Record(Value):
    """Everything that a release was asked, found, decided, did and saw; every document is rendered from it."""

    version: Literal[1] = 1
    id: str
    app: str
    ref: str = "HEAD"
    started: datetime
    ended: datetime | None = None
    run: str = ""  # the Prefect flow run's id
    run_url: str = ""
    state: str = ""  # Promoted, RolledBack, Refused, Held, Interrupted, Planned
    summary: str = ""  # the sentence of that state
    plan: Plan | None = None
    build: Built | None = None
    push: Pushed | None = None
    deploy: Candidate | None = None
    verify: tuple[Finding, ...] | None = None
    moves: tuple[Move, ...] = ()
    windows: tuple[Window, ...] = ()
    verdict: Verdict | None = None
    proof: tuple[Finding, ...] | None = None  # what serves: digest and split
    validate_: tuple[Finding, ...] | None = Field(default=None, alias="validate")
    metrics: dict[str, str] | None = None  # group -> sample lines after the release
    revisions: tuple[Revision, ...] | None = None
    rollback: tuple[Finding, ...] | None = None
    documents: tuple[Finding, ...] | None = None
    problem: Problem | None = None
    timings: tuple[Timing, ...] = ()

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, serialize_by_alias=True)

    def plus(self, **seen: Any) -> Record:
        """A new record that also holds what a stage saw."""
        return self.model_copy(update=seen)

    def seconds(self, stage: str) -> float | None:
        return next((t.seconds for t in self.timings if t.stage == stage), None)


def medians(records: Iterable[Record]) -> dict[str, float]:
    """The median seconds of each stage over earlier releases."""
    seen: dict[str, list[float]] = {}
    for record in records:
        for timing in record.timings:
            seen.setdefault(timing.stage, []).append(timing.seconds)
    return {stage: statistics.median(values) for stage, values in seen.items()}
