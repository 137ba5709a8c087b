"""The rollout's state, its one lock, and the only function that builds a move; values in, value out.

The state lives on the Cloud Run service, in one annotation, and is written together with the traffic it speaks of:
one UpdateService with the etag of the read that it was decided on, all or nothing.
"""

import json
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Literal

from pydantic import ValidationError

from relais.config import Canary, duration
from relais.errors import Conflict, Locked, Lost, Overtaken, Refused
from relais.model import LATEST, Judgement, Plan, ServiceName, Serving, Share, Split, Target, Value, Wheel, Window

ANNOTATION = "relais.dev/rollout"
STAMP_RELEASE = "relais.dev/release"  # on the candidate's revision: which release made it
STAMP_STABLE = "relais.dev/stable"  # on the candidate's revision: who served before it
STAMP_TAG = "relais.dev/image-tag"  # on the candidate's revision: the tag that its image was pushed under
STAMP_COMMIT = "relais.dev/commit"  # on the candidate's revision: what was released

Phase = Literal["deploying", "verifying", "rolling", "restoring", "held", "fresh", "done"]
HOLDING: tuple[Phase, ...] = ("deploying", "verifying", "rolling", "restoring", "held")
LEASE = timedelta(minutes=5)
BRIEF = timedelta(minutes=1)  # of the phase "restoring": whoever restored proves it within seconds, or the watch does


class Rollout(Value):
    """What the annotation says: whose rollout it is, who served before, who should serve now, and until when the owner drives."""

    v: Literal[1] = 1
    release: str
    app: str
    commit: str
    digest: str
    candidate: str
    tag: str
    stable: Split
    phase: Phase
    step: int = 0
    since: datetime
    written: dict[str, int]  # the desired shares as written last, by revision name
    seq: int = 1
    owner: str
    epoch: int
    lease_until: datetime
    policy: dict[str, Any] = {}  # the release file's canary and validate sections, whole

    @property
    def stable_tag(self) -> str:
        """The tag of the largest stable revision: it stays ready to take over, and probes find it."""
        return f"s{self.tag[1:]}" if self.tag else ""

    @property
    def wheel(self) -> Wheel:
        return Wheel(owner=self.owner, epoch=self.epoch)

    @property
    def owed(self) -> Split:
        """What an orphan goes back to: the recorded split, or what was being put back already (a person may have named another)."""
        if self.phase != "restoring" or LATEST in self.written:
            return self.stable
        return Split(shares=tuple(Share(revision=name, percent=part) for name, part in self.written.items()))


class Write(Value):
    """One UpdateService of exactly `traffic` and `annotations`, on the read whose etag it carries."""

    service: ServiceName
    etag: str
    targets: tuple[Target, ...]
    annotations: dict[str, str]
    rollout: Rollout
    latest_created: str  # a move makes no revision: this must be the same in the answer


def read(serving: Serving) -> Rollout | None:
    """The rollout that the service's annotation speaks of; one that cannot be read is a refusal, never a guess."""
    text = serving.annotations.get(ANNOTATION, "")
    if not text:
        return None
    try:
        return Rollout.model_validate_json(text)
    except ValidationError as error:
        raise Refused(
            f"the annotation {ANNOTATION} cannot be read ({error.error_count()} problems), so nobody knows whether a rollout is under way",
            where=str(serving.service),
            remedy="look at the service's traffic; when it is as it should be, remove the annotation and release again",
        ) from None


def require_free(serving: Serving, now: datetime) -> None:
    """Raise Locked while a rollout holds the service (the annotation is the only lock)."""
    held = read(serving)
    if held is None or held.phase not in HOLDING:
        return
    if held.phase == "held":
        how = "end it with the promote or the rollback deployment"
    elif serving.asked != held.written:
        how = "somebody else moved traffic meanwhile, so only a person ends it: with the rollback deployment, which asks who should serve"
    elif held.lease_until > now:
        how = f"wait for it, or cancel its run; its lease ends at {_clock(held.lease_until)}"
    else:
        how = "its lease has run out: run the watch, which puts the recorded split back, or the rollback deployment"
    raise Locked(
        f"release {held.release} of {held.commit[:7]} holds the service since {_clock(held.since)} ({held.phase}, owner {held.owner})",
        where=str(serving.service),
        remedy=how,
    )


def fence(serving: Serving, wheel: Wheel) -> Rollout:
    """The rollout, if `wheel` still holds it and traffic is what it wrote last; otherwise Lost, with who has it."""
    mine = read(serving)
    if mine is None:
        raise Lost(
            "the rollout's annotation is gone: somebody replaced the service",
            where=str(serving.service),
            remedy="look at who serves, then use the rollback deployment; nothing was written",
        )
    if mine.wheel != wheel:
        raise Overtaken(
            f"the rollout of {mine.release} is driven by {mine.owner} (epoch {mine.epoch}) now, not by {wheel.owner} (epoch {wheel.epoch})",
            where=str(serving.service),
            remedy="nothing was written; follow the run that drives it",
        )
    if serving.asked != mine.written:
        raise Lost(
            f"somebody else moved traffic: it is {_shares(serving.asked)}, and this rollout wrote {_shares(mine.written)}",
            where=str(serving.service),
            remedy="nothing was written over it; when it is clear who should serve, name that revision to the rollback deployment",
        )
    return mine


def begin(serving: Serving, plan: Plan, digest: str, now: datetime, policy: Mapping[str, Any], lease: timedelta = LEASE) -> Write:
    """The part of the deploy that takes the lock: the stable revisions pinned by name, the candidate tagged at 0 %."""
    require_free(serving, now)
    if not serving.split.same(plan.stable):
        raise Refused(
            f"traffic changed since the plan: it was {plan.stable}, and is {serving.split} now",
            where=str(serving.service),
            remedy="somebody moved traffic while this release was being built: look at what they did, then release again",
        )
    if plan.first:  # nobody serves: the service was made and never became ready
        targets = (Target(revision=LATEST, percent=100, tag=plan.traffic_tag),)
        return _as_it_stands(serving, first(plan, digest, now, policy, lease), targets)
    return _write(serving, _new(plan, digest, now, policy, lease, plan.stable.by_name()), plan.stable)


def first(plan: Plan, digest: str, now: datetime, policy: Mapping[str, Any], lease: timedelta = LEASE) -> Rollout:
    """The annotation of a service that its first release makes: LATEST serves, and there is nothing to go back to."""
    return _new(plan, digest, now, policy, lease, {LATEST: 100})


def _new(plan: Plan, digest: str, now: datetime, policy: Mapping[str, Any], lease: timedelta, written: dict[str, int]) -> Rollout:
    return Rollout(
        release=plan.id, app=plan.source.url or plan.source.root, commit=plan.source.commit.sha, digest=digest, candidate=plan.revision,
        tag=plan.traffic_tag, stable=plan.stable, phase="deploying", since=now, written=written, owner=plan.wheel.owner,
        epoch=plan.wheel.epoch, lease_until=now + lease, policy=dict(policy),
    )  # fmt: skip


def move(serving: Serving, wheel: Wheel, split: Split, phase: Phase, now: datetime, *, step: int | None = None) -> Write:
    """The write that makes `split` serve; built from one read, fenced, and never touching the template."""
    mine = fence(serving, wheel)
    return _next(serving, mine, split, phase, now, step=mine.step if step is None else step)


def take_over(serving: Serving, owner: str, now: datetime, *, foreign: bool = False, seen: Rollout | None = None) -> Write:
    """The write by which `owner` gets the wheel, at the next epoch, while the split stays as it is.

    A split that somebody else wrote is not taken over, but by a person's word (`foreign`); and a rollout that is not the
    one that was decided on (`seen`) any more, because its driver came back or another one began, is left to whoever drives it.
    """
    held = read(serving)
    if held is None:
        raise Refused("no rollout is recorded on the service", where=str(serving.service), remedy="there is nothing to take over")
    if seen is not None and held != seen and held.owner != owner:
        what = f"{held.owner} has written since it was looked at: the rollout of {held.release} is {held.phase}"
        raise Conflict(what, where=str(serving.service), remedy="nothing was written; look again")
    if not foreign and serving.asked != held.written:
        fence(serving, held.wheel)
    lease = {"lease_until": now + LEASE, "written": serving.asked}
    return _as_it_stands(serving, held.model_copy(update={"owner": owner, "epoch": held.epoch + 1, "seq": held.seq + 1, **lease}))


def adopt(serving: Serving, owner: str, now: datetime) -> Write:
    """The write by which a person's rollback takes the lock of a service that carries no rollout."""
    taken = Rollout(
        release="by hand", app="", commit="", digest="", candidate="", tag="", stable=serving.split, phase="restoring", since=now,
        written=serving.asked, owner=owner, epoch=1, lease_until=now + LEASE,
    )  # fmt: skip
    return _as_it_stands(serving, taken)


def renew(serving: Serving, wheel: Wheel, now: datetime) -> Write | None:
    """The write that prolongs the lease of who is on the way forward, once less than half of it is left; None before."""
    mine = fence(serving, wheel)
    if mine.phase not in ("deploying", "verifying", "rolling") or mine.lease_until - now > LEASE / 2:
        return None
    return _as_it_stands(serving, mine.model_copy(update={"seq": mine.seq + 1, "lease_until": now + LEASE}))


def enter(serving: Serving, wheel: Wheel, phase: Phase, now: datetime, *, untag: bool = False) -> Write:
    """The write that changes the phase alone; traffic stays as it is (`untag` removes the candidate's tag)."""
    mine = fence(serving, wheel)
    lease = now + LEASE if phase in HOLDING and phase != "held" else now
    changed = mine.model_copy(update={"phase": phase, "seq": mine.seq + 1, "since": now, "lease_until": lease})
    gone = (mine.tag, mine.stable_tag) if untag else ()
    kept = (t.model_copy(update={"tag": ""}) if t.tag in gone else t for t in serving.desired)
    return _as_it_stands(serving, changed, tuple(t for t in kept if t.percent or t.tag))


def follow_latest(serving: Serving, wheel: Wheel, now: datetime) -> Write | None:
    """The write that returns to LATEST after promotion, if latest created = latest ready = candidate in this very read."""
    mine = fence(serving, wheel)
    if not mine.candidate == serving.latest_created == serving.latest_ready:
        return None
    changed = mine.model_copy(update={"seq": mine.seq + 1, "written": {LATEST: 100}, "lease_until": now})
    tagged = tuple(t.model_copy(update={"percent": 0}) for t in serving.desired if t.tag)
    return _as_it_stands(serving, changed, (Target(revision=LATEST, percent=100), *tagged))


def _next(serving: Serving, mine: Rollout, split: Split, phase: Phase, now: datetime, *, step: int) -> Write:
    after = mine.model_copy(
        update={
            "phase": phase, "step": step, "since": now, "seq": mine.seq + 1, "written": split.by_name(),
            "lease_until": now + (BRIEF if phase == "restoring" else LEASE if phase in HOLDING else timedelta(0)),
        }
    )  # fmt: skip
    return _write(serving, after, split)


def _write(serving: Serving, rollout: Rollout, split: Split) -> Write:
    """Shares, then our tags as the phase wants them, then the tags of others as they are."""
    if not split.by_name():
        raise Refused("an empty split would mean LATEST 100 %", where=str(serving.service), remedy="name the revision that should serve")
    shares = tuple(Target(revision=name, percent=part) for name, part in split.by_name().items())
    return _as_it_stands(serving, rollout, (*shares, *_tags(rollout), *_of_others(serving, rollout)))


def _tags(rollout: Rollout) -> tuple[Target, ...]:
    """The candidate's tag until its rollout has ended; the stable side's until nobody looks after the release any more."""
    if not rollout.tag:
        return ()
    candidate = Target(revision=rollout.candidate, tag=rollout.tag)
    back = tuple(Target(revision=name, tag=rollout.stable_tag) for name in [rollout.stable.main] if name)
    return {"done": (), "fresh": back}.get(rollout.phase, (candidate, *back))


def _of_others(serving: Serving, rollout: Rollout) -> tuple[Target, ...]:
    """Tags that are not ours stay; those of this rollout, and of the last one that ended, are left out."""
    last = read(serving)
    ours = {rollout.tag, rollout.stable_tag, *({last.tag, last.stable_tag} if last else ())}
    return tuple(t.model_copy(update={"percent": 0}) for t in serving.desired if t.tag and t.tag not in ours and t.revision != LATEST)


def _as_it_stands(serving: Serving, rollout: Rollout, targets: tuple[Target, ...] | None = None) -> Write:
    return Write(
        service=serving.service,
        etag=serving.etag,
        targets=serving.desired if targets is None else targets,
        annotations={**serving.annotations, ANNOTATION: rollout.model_dump_json()},
        rollout=rollout,
        latest_created=serving.latest_created,
    )


def without_annotation(annotations: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in annotations.items() if name != ANNOTATION}


# -- the decision of a step -----------------------------------------------------------------------------------------------

LEAST_ERRORS = 2  # one bad answer is an accident
LEAST_REQUESTS = 10  # below, an error rate says nothing


def judge(window: Window, slo: float, ratio: float = 3.0) -> Judgement:
    """A plain comparison of error rates: worse above the SLO and above `ratio` times the stable revisions' rate."""
    asked, bad = window.candidate_requests, window.candidate_errors
    if not asked:
        return Judgement(word="blind", because="no request reached the candidate")
    rate = bad / asked
    stable = window.stable_errors / window.stable_requests if window.stable_requests else 0.0
    counts = f"{bad} errors in {asked} requests against {window.stable_errors} in {window.stable_requests}"
    if bad >= LEAST_ERRORS and rate > slo and rate > ratio * stable:
        return Judgement(word="worse", because=f"{counts}: above {slo:.1%} and more than {ratio:g} times the stable rate")
    if asked < LEAST_REQUESTS:
        return Judgement(word="inconclusive", because=f"{counts}: too few to tell")
    return Judgement(word="not worse", because=counts)


Decision = Literal["wait", "advance", "rolled back", "held"]
AT_DEADLINE: Mapping[str, Decision] = {"promote": "advance", "rollback": "rolled back", "hold": "held"}


def decide(judgement: Judgement, elapsed: timedelta, rules: Canary) -> Decision:
    """The next move at a step: what is worse goes back at once; nothing goes up before the bake, and nothing up without evidence."""
    if judgement.word == "worse":
        return "rolled back"
    if judgement.word == "not worse" and elapsed >= rules.bake:
        return "advance"
    if judgement.word == "blind" and elapsed >= min(rules.blind, max(rules.deadline, rules.bake)):
        return "rolled back" if rules.on_blind == "restore" else "held"
    if elapsed >= rules.deadline and elapsed >= rules.bake and judgement.word == "inconclusive":
        return AT_DEADLINE[rules.on_deadline]
    return "wait"


Action = Literal["leave", "restore", "release", "finish"]


def attend(found: Rollout, now: datetime) -> Action:
    """What the watch does about a rollout: an orphan that moved users is restored, one that moved nobody loses its lock."""
    if found.phase in ("held", "done"):
        return "leave"
    if found.phase == "fresh":
        watched = duration(str(found.policy.get("validate", {}).get("watch", "24h")))
        return "finish" if now >= found.since + watched else "leave"
    if found.lease_until > now:
        return "leave"
    return "restore" if found.phase in ("rolling", "restoring") else "release"


def _clock(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


def _shares(shares: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {part} %" for name, part in shares.items()) or "empty"


def dump_stable(split: Split) -> str:
    """The recorded split, as the candidate's own annotation carries it."""
    return json.dumps(split.by_name(), sort_keys=True)
