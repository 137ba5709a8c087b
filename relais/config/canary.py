"""The candidate's way to 100 %."""

from datetime import timedelta
from itertools import pairwise
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from relais.config.contract import HttpRequest
from relais.config.scalars import (
    TRUTHS,
    Duration,
    Flag,
    Number,
    Pattern,
    Percent,
    Rate,
    Share,
    Whole,
    Wrong,
    between,
    duration,
    found_in,
    unquoted,
)
from relais.config.section import FILLED, MANY, OrElse, Section


class JudgeSettings(Section):
    """The judge's limits."""

    alpha: Annotated[Number, Field(gt=0, lt=0.5)] = 0.01
    """The chance of a false rollback, however often one looks."""
    margin: Annotated[Number, Field(ge=1, le=100)] = 1.25
    """The odds ratio that is still no harm."""
    slo: Share = 0.01
    """The error rate that the candidate itself must stay below."""
    ratio: Annotated[Number, Field(gt=1, le=100)] = 3.0
    """The odds ratio that promotion must rule out."""
    beta: Annotated[Number, Field(gt=0, lt=0.5)] = 0.1
    """The chance of promoting what is worse than that."""


class Noise(Section):
    """Requests that the judge leaves out, and counts."""

    status: Annotated[Whole, Field(ge=100, le=599)] | None = None
    """By status."""
    path: Pattern | None = None
    """By a text, or a /regular expression/, in the path."""
    agent: Pattern | None = None
    """By a text, or a /regular expression/, in the user agent."""

    @model_validator(mode="after")
    def _something(self) -> "Noise":
        if self.status is None and self.path is None and self.agent is None:
            raise Wrong("names no requests", "write status, path or agent")
        return self

    def covers(self, status: int, path: str, agent: str) -> bool:
        """Whether a request is one of these: all that is named must fit."""
        return (
            self.status in (None, status)
            and (self.path is None or found_in(self.path, path))
            and (self.agent is None or found_in(self.agent, agent))
        )


class TrafficProbes(Section):
    """Requests sent alike to both revisions' tagged URLs."""

    rate: Rate = 1.0
    """How often, to each revision."""
    http: Annotated[tuple[HttpRequest, ...], MANY, FILLED]
    """What is asked, in turn."""


def _approval(value: object) -> timedelta | None:
    value = unquoted(value)
    if value is None or value is False:
        return None
    if said := TRUTHS.get(str(value).lower()):
        raise Wrong(f"{value} is neither true nor false", f"write {said}, or a duration such as 2h")
    return timedelta(hours=24) if value is True else duration(value)


class Canary(Section):
    """The candidate's way to 100 %."""

    steps: Annotated[tuple[Percent, ...], MANY, FILLED] = (10,)
    """The candidate's shares on the way, in percent, rising."""
    bake: Annotated[Duration, between("0s", "24h")] = timedelta(minutes=5)
    """The least time at a step."""
    deadline: Annotated[Duration, between("0s", "72h")] = Field(default_factory=lambda data: 2 * data["bake"])
    """The most time at a step; otherwise twice the bake."""
    early: Flag = False
    """Go on as soon as proven, without waiting for the bake."""
    on_deadline: Literal["hold", "promote", "rollback"] = "hold"
    """What to do at the deadline, where nothing is worse and nothing is proven."""
    blind: Annotated[Duration, between("30s", "24h")] = timedelta(minutes=5)
    """The longest time with a share and without evidence."""
    on_blind: Literal["restore", "hold"] = "restore"
    """What to do then."""
    on_orphan: Literal["restore", "continue"] = "restore"
    """What the watch does with a rollout whose driver died."""
    approve: Annotated[Duration | None, BeforeValidator(_approval), OrElse({"type": "boolean"})] = None
    """A person's word before 100 %: true (24 hours), or a duration as its time limit."""
    finish: Literal["as-before", "latest", "pinned"] = "as-before"
    """What traffic points to after 100 %."""
    evidence: Literal["auto", "logs", "monitoring"] = "auto"
    """Where the evidence comes from."""
    judge: JudgeSettings = JudgeSettings()
    """The judge's limits."""
    noise: Annotated[tuple[Noise, ...], MANY] = ()
    """Requests that the judge leaves out."""
    probes: TrafficProbes | None = None
    """Requests sent alike to both revisions."""

    @field_validator("steps")
    @classmethod
    def _rising(cls, steps: tuple[int, ...]) -> tuple[int, ...]:
        for index, (before, after) in enumerate(pairwise(steps), 1):
            if after <= before:
                raise Wrong(f"{after} does not rise from {before}", "write each step higher than the one before", at=(index,))
        return steps

    @field_validator("deadline")
    @classmethod
    def _at_least_bake(cls, deadline: timedelta, info: ValidationInfo) -> timedelta:
        if (bake := info.data.get("bake")) and deadline < bake:
            raise Wrong("is shorter than the bake", "raise deadline, or lower bake")
        return deadline
