"""The frozen nouns of a release: values that travel as JSON through tasks, subflows, the record and the documents."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field

from relais.config import ReleaseFile

Outcome = Literal["passed", "failed", "skipped", "waived", "not proven"]
SIGNS: Mapping[Outcome, str] = {"passed": "✅", "failed": "❌", "skipped": "⏭️", "waived": "🟡", "not proven": "❔"}
LATEST = "LATEST"


class Value(BaseModel):
    """Base of all nouns: frozen, and a misspelt field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Finding(Value):
    """What a check, a gate, a request of the contract or a box of the checklist came to, with its evidence."""

    name: str
    outcome: Outcome
    detail: str = ""  # one line: what was expected and what came
    evidence: str = ""  # some lines of output, log or body
    seconds: float = 0.0
    required: bool = True
    kind: str = ""  # reading, git, check, http, metrics, logs, counter, smoke, proof, document ...
    reused: bool = False  # it passed before, for the same commit and inputs

    @property
    def blocks(self) -> bool:
        return self.required and self.outcome in ("failed", "not proven")

    def __str__(self) -> str:
        return f"{SIGNS[self.outcome]} {self.name}: {self.outcome}" + (f" ({self.detail})" if self.detail else "")


def blocking(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    return tuple(f for f in findings if f.blocks)


# -- where --------------------------------------------------------------------------------------------------------------


class ServiceName(Value):
    """A Cloud Run service: project, region and short name."""

    project: str = Field(title="Project", description="The id of the Google Cloud project.")
    region: str = Field(title="Region", description="Such as europe-west1.")
    name: str = Field(title="Service", description="The service's short name.")

    @property
    def parent(self) -> str:
        return f"projects/{self.project}/locations/{self.region}"

    @property
    def full(self) -> str:
        return f"{self.parent}/services/{self.name}"

    def __str__(self) -> str:
        return f"{self.name} ({self.project}, {self.region})"


class Commit(Value):
    """One commit: full hash and first line."""

    sha: str
    subject: str = ""
    author: str = ""
    date: str = ""  # ISO 8601

    @property
    def short(self) -> str:
        return self.sha[:7]

    def __str__(self) -> str:
        return f"{self.short} {self.subject}".strip()


class Source(Value):
    """The team's repository as it is released: where it lies on this machine, and what Git says about it."""

    root: str
    url: str = ""  # where it was cloned from, when `app` is a URL (without credentials)
    branch: str = ""
    commit: Commit
    previous: Commit | None = None  # the commit that serves, where its revision names one
    log: tuple[Commit, ...] = ()  # the last ten
    since: tuple[Commit, ...] = ()  # between what serves and this commit, newest first
    findings: tuple[Finding, ...] = ()


class App(Value):
    """What is released, opened: the release file with the run's changes, and the directory it lies in."""

    root: str
    url: str = ""  # where it was cloned from, when `app` is a URL (without credentials)
    ref: str = "HEAD"
    release: dict[str, Any]  # `App.file`, as data

    @property
    def file(self) -> ReleaseFile:
        return ReleaseFile.model_validate(self.release)

    @property
    def service(self) -> ServiceName:
        file = self.file
        return ServiceName(project=file.project, region=file.region, name=file.service)


class Text(Value):
    """A document that whoever releases must have before their eyes, or the part of it that matters."""

    path: str
    part: str = ""  # the section, or "last 3 entries"
    excerpt: str = ""


# -- who serves ---------------------------------------------------------------------------------------------------------


class Share(Value):
    """One revision's part of the traffic, in percent."""

    revision: str
    percent: int = Field(ge=0, le=100)


class Split(Value):
    """Who serves how much, by revision names; `latest` tells whether the service followed its latest revision."""

    shares: tuple[Share, ...] = ()
    mode: Literal["latest", "pinned"] = "pinned"

    def __str__(self) -> str:
        return ", ".join(f"{s.revision} {s.percent} %" for s in self.shares) or "nobody"

    @property
    def main(self) -> str:
        """The revision with the largest share; "" where nobody serves."""
        shares = self.by_name()
        return max(shares, key=lambda name: shares[name]) if shares else ""

    def percent(self, revision: str) -> int:
        return sum(s.percent for s in self.shares if s.revision == revision)

    def same(self, other: Split) -> bool:
        """Equal shares, whatever the order and the mode."""
        return self.by_name() == other.by_name()

    def by_name(self) -> dict[str, int]:
        shares: dict[str, int] = {}
        for share in self.shares:
            if share.percent:
                shares[share.revision] = shares.get(share.revision, 0) + share.percent
        return shares

    def giving(self, candidate: str, percent: int) -> Split:
        """The same revisions scaled down so that `candidate` has `percent`; whole numbers that sum to 100."""
        others = {name: part for name, part in self.by_name().items() if name != candidate}
        total = sum(others.values())
        if percent >= 100 or not total:
            return Split(shares=(Share(revision=candidate, percent=100),))
        exact = {name: part * (100 - percent) / total for name, part in others.items()}
        whole = {name: int(part) for name, part in exact.items()}
        short = 100 - percent - sum(whole.values())
        for name in sorted(exact, key=lambda n: (whole[n] - exact[n], n))[:short]:
            whole[name] += 1
        shares = tuple(Share(revision=name, percent=part) for name, part in whole.items() if part)
        return Split(shares=(*shares, Share(revision=candidate, percent=percent)) if percent else shares)


class Target(Value):
    """One entry of a service's `traffic`: a revision's short name, or LATEST."""

    revision: str
    percent: int = 0
    tag: str = ""


class Revision(Value):
    """A revision as Cloud Run lists it."""

    name: str
    created: datetime | None = None
    ready: bool = False
    message: str = ""
    image: str = ""
    digest: str = ""
    tag: str = ""  # the image's tag, where the registry still knows one
    percent: int = 0
    commit: str = ""
    release: str = ""


class Secret(Value):
    """A reference to a secret's version; never its value."""

    secret: str
    version: str = "latest"

    def __str__(self) -> str:
        return f"{self.secret}:{self.version}"


class Spec(Value):
    """What a revision runs with: enough to compare what serves with what will. Env by fingerprint, never by value."""

    image: str = ""
    env: dict[str, str] = {}  # name -> fingerprint of the value
    plain: dict[str, str] = {}  # name -> value, for the names that the release file declares plain
    secrets: dict[str, str] = {}  # name -> secret:version
    settings: dict[str, str] = {}  # memory, cpu, timeout, max_instances, ... in the API's own spelling


class Serving(Value):
    """A service as one read saw it; `etag` ties a later write to this very read."""

    service: ServiceName
    exists: bool = True
    etag: str = ""
    uri: str = ""
    settled: bool = True
    desired: tuple[Target, ...] = ()
    split: Split = Split()  # observed, LATEST resolved to a name
    tags: dict[str, str] = {}  # tag -> URL
    annotations: dict[str, str] = {}
    latest_created: str = ""
    latest_ready: str = ""
    public: bool = False  # known where `access` was asked for
    ingress: str = ""  # in the release file's words
    scaling: dict[str, int] = {}  # of the service, where it is set: min_instances, max_instances
    message: str = ""  # of the terminal condition, where it is not "ready"
    updated: datetime | None = None

    @property
    def asked(self) -> dict[str, int]:
        """The desired shares by revision name (LATEST under its own word)."""
        shares: dict[str, int] = {}
        for target in self.desired:
            if target.percent:
                shares[target.revision] = shares.get(target.revision, 0) + target.percent
        return shares


class Stable(Value):
    """Who serves and with which settings, and the settings that the release file makes of them."""

    serving: Serving
    main: Revision | None = None  # the revision with the largest share
    before: Spec | None = None
    after: Spec
    revisions: tuple[Revision, ...] = ()
    registry_uri: str

    @property
    def taken(self) -> tuple[str, ...]:
        """The revision names in use."""
        return tuple(revision.name for revision in self.revisions)

    def candidate_of(self, release: str, commit: str) -> str:
        """The revision that this release made of this commit before, when its run is retried; "" where there is none."""
        return next((r.name for r in self.revisions if (r.release, r.commit) == (release, commit)), "")


# -- the plan -----------------------------------------------------------------------------------------------------------

Kind = Literal["added", "changed", "removed", "lowered", "kept", "note"]


class Line(Value):
    """One line of the plan: what of the service, how it changes, and whether that blocks."""

    kind: Kind
    what: str
    before: str = ""
    after: str = ""
    allow: str = ""  # the word in deploy.allow that lets it through; "" needs none
    blocks: bool = False

    def __str__(self) -> str:
        change = f"{self.before} -> {self.after}" if self.before and self.after else self.before or self.after
        return f"{self.kind} {self.what}" + (f": {change}" if change else "")


class Wheel(Value):
    """Who may write to the service: the owner's name and the epoch, which every take-over raises."""

    owner: str
    epoch: int = 1


class Plan(Value):
    """What this release would do, before it does anything; everything later stages need to know, and no secret."""

    id: str  # 20261124-213112-3fa9c2, kept over retries
    wheel: Wheel
    started: datetime
    by: str
    service: ServiceName
    source: Source
    release: dict[str, Any]  # the release file with the run's changes, as data: `ReleaseFile.model_validate(plan.release)`
    title: str
    slug: str
    changes: tuple[Any, ...] = ()
    image: str  # registry_uri/service, without tag
    tag: str  # of the image
    revision: str  # the candidate's name
    traffic_tag: str  # the candidate's tag on the service
    first: bool = False  # the service does not exist yet: no stable, no canary
    stable: Split = Split()
    stable_spec: Spec | None = None
    uri: str = ""
    etag: str = ""
    lines: tuple[Line, ...] = ()
    texts: tuple[Text, ...] = ()
    findings: tuple[Finding, ...] = ()  # reading, Git, checks, gates
    medians: dict[str, float] = {}  # stage -> seconds in earlier releases

    @property
    def file(self) -> ReleaseFile:
        """The release file with the run's changes, as it was when the plan was made."""
        return ReleaseFile.model_validate(self.release)

    @property
    def facts(self) -> dict[str, str]:
        """What the release file's {placeholders} stand for once the plan is drawn; one clock for all of them."""
        started = self.started.astimezone(ZoneInfo(self.file.documents.timezone))
        return {
            "timestamp": f"{started:%Y%m%d-%H%M%S}", "date": f"{started:%Y-%m-%d}", "slug": self.slug, "service": self.service.name,
            "commit": self.source.commit.sha, "short_commit": self.source.commit.short, "tag": self.tag, "revision": self.revision,
            "project": self.service.project, "region": self.service.region, "image": f"{self.image}:{self.tag}", "url": self.uri,
        }  # fmt: skip

    @property
    def blockers(self) -> tuple[Line, ...]:
        return tuple(line for line in self.lines if line.blocks)


# -- what was made ------------------------------------------------------------------------------------------------------


class Layer(Value):
    size: int  # bytes
    created_by: str


class Built(Value):
    """An image on the Engine."""

    id: str
    ref: str  # name:tag
    key: str  # of the content that the builder got
    size: int  # bytes, on the Engine
    platform: str
    layers: tuple[Layer, ...] = ()  # largest first
    reused: bool = False
    commit: str = ""  # that it was built from
    builder: str = ""
    log: str = ""  # the last lines
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()


class Pushed(Value):
    """An image in the registry, known by digest."""

    ref: str  # name:tag
    digest: str  # sha256:... as the registry says it
    pinned: str  # name@digest: what is deployed
    size: int = 0  # bytes in the registry (compressed)
    seconds: float = 0.0
    findings: tuple[Finding, ...] = ()


class Candidate(Value):
    """The new revision, Ready, at 0 %."""

    revision: str
    digest: str
    tag: str = ""
    uri: str = ""  # of the tag
    seconds: float = 0.0
    log: tuple[str, ...] = ()  # its start-up lines
    log_uri: str = ""  # where its whole log is shown
    reused: bool = False


class Window(Value):
    """A closed span of evidence: requests and errors (5xx) of candidate and stable between two instants."""

    begin: datetime
    end: datetime
    percent: int  # the candidate's share
    candidate_requests: int = 0
    candidate_errors: int = 0
    stable_requests: int = 0
    stable_errors: int = 0
    left_out: int = 0  # tagged-URL and noise traffic

    def __add__(self, other: Window) -> Window:
        return Window(
            begin=min(self.begin, other.begin),
            end=max(self.end, other.end),
            percent=other.percent,
            candidate_requests=self.candidate_requests + other.candidate_requests,
            candidate_errors=self.candidate_errors + other.candidate_errors,
            stable_requests=self.stable_requests + other.stable_requests,
            stable_errors=self.stable_errors + other.stable_errors,
            left_out=self.left_out + other.left_out,
        )


Word = Literal["worse", "not worse", "inconclusive", "blind"]


class Judgement(Value):
    """What the evidence so far says, in a word and a sentence."""

    word: Word
    because: str = ""


VerdictWord = Literal["promoted", "rolled back", "held"]


class Move(Value):
    """A change of the split that was written, and when."""

    at: datetime
    split: Split
    because: str
    accepted_seconds: float = 0.0


class Verdict(Value):
    """What a rollout ends with."""

    word: VerdictWord
    because: str
    windows: tuple[Window, ...] = ()
    moves: tuple[Move, ...] = ()


# -- the record ---------------------------------------------------------------------------------------------------------


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
