"""What the documents say of a release: the record's facts, joined where several stages speak of one thing."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from itertools import chain
from typing import Any

from relais.documents.words import Clock, Language, duration
from relais.model import SIGNS, Built, Candidate, Commit, Finding, Move, Outcome, Plan, Pushed, Record, Revision, Share, Split, Window


@dataclass(frozen=True)
class Change:
    """One entry of what changes, with its parts."""

    title: str
    parts: tuple[str, ...] = ()

    @classmethod
    def read(cls, entry: Any) -> "Change":
        """From the forms that the release file knows: a text, {title: [items]}, {title:, items:}."""
        if isinstance(entry, dict):
            if "title" in entry:
                return cls(str(entry["title"]), tuple(map(str, entry.get("items") or ())))
            title, items = next(iter(entry.items()), ("", ()))
            return cls(str(title), tuple(map(str, [items] if isinstance(items, str) else items or ())))
        return cls(str(entry))


@dataclass(frozen=True)
class Back:
    """The split that was put back; `at` is None where the record has no such move."""

    split: Split
    at: datetime | None
    because: str


@dataclass(frozen=True)
class Facts:
    """A record as its documents see it; what nobody saw is an empty text or None."""

    record: Record

    @property
    def plan(self) -> Plan | None:
        return self.record.plan

    def asked(self, section: str) -> dict[str, Any]:
        """A section of the release file as it was."""
        found = self.plan.release.get(section) if self.plan else None
        return found if isinstance(found, dict) else {}

    @cached_property
    def clock(self) -> Clock:
        return Clock.of(str(self.asked("documents").get("timezone") or "UTC"))

    # -- names

    @property
    def service(self) -> str:
        return self.plan.service.name if self.plan else ""

    @property
    def title(self) -> str:
        return self.plan.title if self.plan else ""

    @property
    def by(self) -> str:
        return self.plan.by if self.plan else ""

    @property
    def revision(self) -> str:
        return self.record.deploy.revision if self.record.deploy else self.plan.revision if self.plan else ""

    @property
    def tag(self) -> str:
        return self.plan.tag if self.plan else ""

    @property
    def started(self) -> datetime:
        return self.plan.started if self.plan else self.record.started

    @property
    def commit(self) -> Commit | None:
        return self.plan.source.commit if self.plan else None

    @property
    def reference(self) -> str:
        """The commit that the release file names, with its subject where the log has it; empty if it is the one that is built."""
        named = str(self.asked("release").get("commit") or "")
        if not named or not self.plan or self.plan.source.commit.sha.startswith(named):
            return ""
        log = (*self.plan.source.since, *self.plan.source.log)
        return next((str(commit) for commit in log if commit.sha.startswith(named)), named)

    @property
    def commits(self) -> tuple[str, ...]:
        """The commits by name: the one that the release file names first, as the seed's report does."""
        built = str(self.commit) if self.commit else ""
        return tuple(text for text in (self.reference, built) if text)

    @cached_property
    def changes(self) -> tuple[Change, ...]:
        if not self.plan:
            return ()
        given = tuple(Change.read(entry) for entry in self.plan.changes)
        return given or tuple(Change(str(commit)) for commit in self.plan.source.since)

    @property
    def next(self) -> tuple[str, ...]:
        return tuple(map(str, self.asked("release").get("next") or ()))

    @property
    def contact(self) -> str:
        return str(self.asked("escalate").get("contact") or "")

    # -- what happened

    @property
    def state(self) -> str:
        return self.record.state or ("Failed" if self.record.problem else "")

    @property
    def promoted(self) -> bool:
        return self.state == "Promoted"

    @property
    def moves(self) -> tuple[Move, ...]:
        return self.record.moves or (self.record.verdict.moves if self.record.verdict else ())

    @property
    def windows(self) -> tuple[Window, ...]:
        return self.record.windows or (self.record.verdict.windows if self.record.verdict else ())

    @cached_property
    def split(self) -> Split | None:
        """Who serves in the end: as it was seen, else as the release left it; None where nobody knows."""
        seen = tuple(Share(revision=r.name, percent=r.percent) for r in self.revisions if r.percent)
        if seen:
            return Split(shares=seen)
        if self.promoted:
            return Split(shares=(Share(revision=self.revision, percent=100),))
        if self.put_back:
            return self.put_back.split
        if self.moves:
            last = self.moves[-1].split
            return None if self.state == "Interrupted" and last.percent(self.revision) else last
        return self.plan.stable if self.plan and not self.plan.first else None

    @cached_property
    def put_back(self) -> "Back | None":
        """What took the candidate's traffic away again, if it had any; the last word, where a person had it after the release."""
        had, back = False, None
        for move in self.moves:
            share = move.split.percent(self.revision)
            if had and not share:
                back = Back(move.split, move.at, move.because)
            had = had or share > 0
        if back is not None:
            return back
        if self.state != "RolledBack" or not self.plan:
            return None
        return Back(self.plan.stable, None, self.record.verdict.because if self.record.verdict else self.record.summary)

    @property
    def share(self) -> int | None:
        """The candidate's share now; None if it cannot be known."""
        if self.split is None:
            return None
        return self.split.percent(self.revision)

    @property
    def revisions(self) -> tuple[Revision, ...]:
        return self.record.revisions or ()

    @property
    def preflight(self) -> tuple[Finding, ...]:
        if not self.plan:
            return ()
        return tuple(dict.fromkeys(chain(self.plan.source.findings, self.plan.findings)))

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All of them, in the order of the stages."""
        r = self.record
        seen = (r.verify, r.validate_, r.proof, r.rollback, r.documents)
        return (*self.preflight, *self.made, *chain.from_iterable(found or () for found in seen))

    @property
    def made(self) -> tuple[Finding, ...]:
        """What was found of the image, where it was built and in the registry."""
        r = self.record
        return (*(r.build.findings if r.build else ()), *(r.push.findings if r.push else ()))

    @property
    def troubles(self) -> tuple[Finding, ...]:
        return tuple(f for f in self.findings if f.outcome in ("failed", "not proven", "waived"))

    @property
    def told(self) -> tuple[Finding, ...]:
        """What short documents name: the checks, the contract, and whatever did not pass; of two with one name, the later."""
        short = [f for f in self.preflight if f.kind == "check" or f.outcome != "passed"]
        return tuple({f.name: f for f in (*short, *(self.record.verify or ()), *(self.record.validate_ or ()))}.values())

    @property
    def logs(self) -> str:
        """The candidate's start-up lines, else what the log checks showed, else the end of the build's log of a build that failed."""
        if self.record.deploy and self.record.deploy.log:
            return "\n".join(self.record.deploy.log)
        return "\n".join(f.evidence for f in self.record.verify or () if f.kind == "logs" and f.evidence)

    @property
    def health(self) -> Outcome | None:
        """Whether the candidate is healthy: Ready, and everything that was asked of it answered."""
        if not self.record.deploy:
            return "failed" if self.record.push and self.record.problem else None
        seen = (*(self.record.verify or ()), *(self.record.validate_ or ()))
        if any(f.blocks for f in seen) or (self.record.verdict and self.record.verdict.word == "rolled back"):
            return "failed"
        return "not proven" if self.record.verify is None else "passed"

    # -- the steps, in the runbook's order

    @cached_property
    def steps(self) -> tuple[Finding, ...]:
        """What was done, one line a step, up to the one that stopped the release."""
        return tuple(self._until_it_stopped())

    def _until_it_stopped(self) -> Iterable[Finding]:
        r, stopped = self.record, self.record.problem is not None
        if self.plan and self.plan.texts:
            yield Finding(name="Required reading", outcome="passed", detail=", ".join(text.path for text in self.plan.texts))
        if not self.plan:
            yield Finding(name="Preflight", outcome="failed" if stopped else "not proven")
            return
        refused = self.state == "Refused" and not (r.build or r.push)
        yield Finding(name="Preflight", outcome="failed" if refused else worst(self.preflight), detail=tally(self.preflight))
        if refused or self.state == "Planned":
            return
        builds = bool(self.plan.release.get("build", True))
        moved: Outcome = "failed" if self.put_back else "passed" if self.split else "not proven"
        stages: list[tuple[str, bool, Outcome, str]] = [
            ("Cloud Run deployment, revision", r.deploy is not None, "passed", _took(r.deploy)),
            ("Verification at 0 %", r.verify is not None, worst(r.verify), tally(r.verify)),
            ("Traffic", bool(self.moves) or self.promoted, moved, str(self.split or "")),
            ("Validation", r.validate_ is not None, worst(r.validate_), tally(r.validate_)),
        ]
        if builds:
            stages = [
                ("Docker image build", r.build is not None, worst(r.build.findings if r.build else None), _took(r.build)),
                ("Push to Artifact Registry", r.push is not None, worst(r.push.findings if r.push else None), _took(r.push)),
                *stages,
            ]
        for name, there, outcome, detail in stages:
            if there:
                yield Finding(name=name, outcome=outcome, detail=detail)
            else:
                if stopped and not self.put_back:
                    yield Finding(name=name, outcome="failed")
                break
        if back := self.put_back:
            yield Finding(name="Rollback", outcome=worst(r.rollback), detail=f"{back.split}")


def worst(findings: Iterable[Finding] | None) -> Outcome:
    """The outcome of a stage with these findings: only what is required fails it."""
    required = [f.outcome for f in findings or () if f.blocks]
    return "failed" if "failed" in required else "not proven" if required else "passed"


def tally(findings: Iterable[Finding] | None) -> str:
    """12/12; where not all passed, how many of each: 10 ✅, 1 ⏭️."""
    found = [f.outcome for f in findings or ()]
    if all(outcome == "passed" for outcome in found):
        return f"{len(found)}/{len(found)}" if found else ""
    return ", ".join(f"{found.count(outcome)} {sign}" for outcome, sign in SIGNS.items() if outcome in found)


def _took(made: Built | Pushed | Candidate | None) -> str:
    return duration(made.seconds) if made and made.seconds else ""


def language_of(record: Record) -> Language:
    """The language that the release file asks for."""
    return "fr" if Facts(record).asked("documents").get("language") == "fr" else "en"
