"""Who serves how much: shift, promote, restore, and the guard around everything that moves traffic."""

import contextlib
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Literal

from relais import rollout
from relais.clients.run import CloudRun
from relais.errors import Conflict, Lost, Missing, Refused, RelaisError, Unavailable
from relais.model import Move, Plan, ServiceName, Serving, Share, Split, Wheel
from tasks.effects import effect, say, shielded

GUARD_READ, GUARD_WRITE = 4.0, 8.0  # seconds: a cancel leaves 30 until SIGKILL
LOOK = 10.0  # seconds between two looks at the lease


def _drive(
    service: ServiceName, build: Callable[[Serving], rollout.Write | None], *, read: float = 10.0, write: float = 15.0
) -> rollout.Write | None:
    """Read, build a move on that read, write it; once more after a conflict, and never twice for one decision.

    After an answer that was lost, the service itself says whether the move was accepted: its annotation carries our seq.
    """
    run = CloudRun()
    for attempt in (1, 2):
        wanted = build(run.read(service, timeout=read))
        if wanted is None:
            return None
        try:
            run.move(wanted, timeout=write)
        except Conflict:
            if attempt == 2:
                raise
            continue
        except Unavailable:
            if not _accepted(run, wanted, read):
                raise
        return wanted
    raise AssertionError("unreachable")


def _accepted(run: CloudRun, wanted: rollout.Write, timeout: float) -> bool:
    seen = rollout.read(run.read(wanted.service, timeout=timeout))
    return seen is not None and (seen.owner, seen.epoch, seen.seq) == (wanted.rollout.owner, wanted.rollout.epoch, wanted.rollout.seq)


def _moved(service: ServiceName, wheel: Wheel, split: Split, phase: rollout.Phase, because: str, step: int | None = None) -> Move:
    begun = time.monotonic()
    _drive(service, lambda serving: rollout.move(serving, wheel, split, phase, datetime.now(UTC), step=step))
    say(f"traffic: {split} ({because})")
    return Move(at=datetime.now(UTC), split=split, because=because, accepted_seconds=round(time.monotonic() - begun, 3))


@effect("give {percent} %", retries=2)
def shift(plan: Plan, percent: int, step: int = 0) -> Move:
    """Give the candidate a share; the stable revisions keep the rest in their own proportions."""
    split = plan.stable.giving(plan.revision, percent)
    return _moved(plan.service, plan.wheel, split, "rolling", f"step {step + 1}: {percent} % for the candidate", step)


@effect("give 100 %", retries=2)
def promote(plan: Plan) -> Move:
    """All traffic to the candidate, by name; the guard stands until it is validated."""
    return _moved(plan.service, plan.wheel, Split().giving(plan.revision, 100), "rolling", "promotion")


@effect("settle", retries=2)
def finish(plan: Plan, follow_latest: bool) -> str:
    """The end of a rollout: the candidate's tag goes, the lock is free, and traffic points where the file wants it.

    With the first write it is promoted; that the second one is not accepted is told, and changes nothing about that.
    """

    def fresh(serving: Serving) -> rollout.Write:
        return rollout.move(serving, plan.wheel, Split().giving(plan.revision, 100), "fresh", datetime.now(UTC))

    _drive(plan.service, fresh)
    back, follows = "`gcloud run services update-traffic --to-latest`", None
    if follow_latest:
        try:
            follows = _drive(plan.service, lambda serving: rollout.follow_latest(serving, plan.wheel, datetime.now(UTC)))
        except (Conflict, Unavailable) as problem:
            say(f"traffic was to follow LATEST again: {problem.what}", level=logging.WARNING)
    how = f"traffic stays pinned to {plan.revision}: a later plain deploy gets 0 % until {back}"
    if follows:
        how = "traffic follows LATEST again: a later plain deploy serves"
    say(how)
    return how


@effect("settle first release", retries=2)
def finish_first(plan: Plan) -> str:
    """The end of a service's first release: it serves already; the lock goes and the tag with it."""
    _drive(plan.service, lambda serving: rollout.enter(serving, plan.wheel, "fresh", datetime.now(UTC), untag=True))
    return "the service's first revision serves, and traffic follows LATEST"


@effect("hold", retries=2)
def hold(plan: Plan, because: str) -> str:
    """Leave the split as it stands, keep the lock, and let a person decide."""
    _drive(plan.service, lambda serving: rollout.enter(serving, plan.wheel, "held", datetime.now(UTC)))
    say(f"held: {because}")
    return because


def keep_the_wheel(plan: Plan) -> None:
    """Look whether it is still ours, and prolong the lease when less than half of it is left; an outage is waited out.

    A plain function: it runs at every look, and as a task would fill the run's page.
    """
    try:
        _drive(plan.service, lambda serving: rollout.renew(serving, plan.wheel, datetime.now(UTC)))
    except Unavailable as outage:
        say(f"who drives cannot be read right now: {outage.what}", level=logging.WARNING)


@effect("take the wheel", retries=2)
def take_over(service: ServiceName, owner: str, *, foreign: bool = False, seen: rollout.Rollout | None = None) -> Wheel:
    """Get the wheel of the service's rollout (of none but `seen`), at the next epoch; a service without one is adopted when `foreign`."""

    def taken(serving: Serving) -> rollout.Write:
        if foreign and rollout.read(serving) is None:
            return rollout.adopt(serving, owner, datetime.now(UTC))
        return rollout.take_over(serving, owner, datetime.now(UTC), foreign=foreign, seen=seen)

    write = _drive(service, taken)
    assert write is not None
    say(f"took over the rollout of release {write.rollout.release} (epoch {write.rollout.epoch})")
    return write.rollout.wheel


@effect("find the target", retries=2)
def target(service: ServiceName, to: str) -> Split:
    """The split to go back to: the recorded one, or one revision by name; only definite evidence rejects it."""
    run = CloudRun()
    serving = run.read(service)
    if not serving.exists:
        raise Missing(f"{service} does not exist", remedy="look at project, region and name")
    if to == "recorded":
        found = rollout.read(serving)
        if found is None or not found.stable.by_name():
            raise Refused("no split is recorded on the service", where=str(service), remedy="name the revision to go back to in `to`")
        split = found.stable
    else:
        split = Split(shares=(Share(revision=to, percent=100),))
    known = {revision.name: revision for revision in run.revisions(service)}
    for name in split.by_name():
        if name not in known:
            newest = ", ".join(list(known)[:5])
            raise Refused(f"revision {name} is gone", where=str(service), remedy=f"name another in `to`: {newest}")
        if known[name].message and not known[name].ready:
            raise Refused(f"revision {name} is not ready: {known[name].message}", where=str(service), remedy="name another in `to`")
    return split


@effect("find what is held", retries=2)
def held(service: ServiceName) -> rollout.Rollout:
    """The rollout that waits for a person's word."""
    found = rollout.read(CloudRun().read(service))
    if found is None or found.phase != "held":
        state = f"the last rollout is {found.phase}" if found else "no rollout is recorded"
        raise Refused(f"nothing is held: {state}", where=str(service), remedy="release with until: verified, then promote")
    return found


@effect("list rollouts in {region}", retries=2)
def rollouts(project: str, region: str) -> tuple[Serving, ...]:
    """The services of a region that carry a rollout."""
    return tuple(CloudRun().services(project, region))


@effect("restore")
def restore(service: ServiceName, wheel: Wheel, split: Split, because: str) -> Move:
    """Put the recorded split back: one write, done when it is accepted; verification is for whoever comes after."""
    begun = time.monotonic()

    def back(serving: Serving) -> rollout.Write:
        return rollout.move(serving, wheel, split, "restoring", datetime.now(UTC))

    _drive(service, back, read=GUARD_READ, write=GUARD_WRITE)
    say(f"traffic is back: {split} ({because})")
    return Move(at=datetime.now(UTC), split=split, because=because, accepted_seconds=round(time.monotonic() - begun, 3))


@effect("free the lock", retries=2)
def release_lock(service: ServiceName, wheel: Wheel) -> None:
    """The end of a rollout that went back, or that moved nobody: tag and lock go."""

    def free(serving: Serving) -> rollout.Write:
        return rollout.enter(serving, wheel, "done", datetime.now(UTC), untag=True)

    _drive(service, free, read=GUARD_READ, write=GUARD_WRITE)


def release_of(service: ServiceName) -> str:
    """The release that the service's rollout belongs to; "" where there is none."""
    found = rollout.read(CloudRun().read(service))
    return found.release if found else ""


def own_urls(plan: Plan) -> dict[Literal["candidate", "stable"], str]:
    """The tagged URLs of both sides, as the service names them."""
    serving = CloudRun().read(plan.service)
    return {"candidate": serving.tags.get(plan.traffic_tag, ""), "stable": serving.tags.get(f"s{plan.traffic_tag[1:]}", "")}


class Guard:
    """Whether traffic must go back when the guarded block is left; a promotion or a declared hold says `stands`."""

    def __init__(self) -> None:
        self.because = ""

    def stands(self, because: str) -> None:
        """From here on, the split that was written is meant to stay."""
        self.because = because


@contextlib.contextmanager
def guarded(plan: Plan, moved: Callable[[Move], None]) -> Iterator[Guard]:
    """Any exit but promotion, or a declared hold, gives the stable revisions their traffic back and frees the lock.

    It moves traffic only while the wheel is still ours: a run that lost it must not undo a promotion or a person's hotfix.
    `moved` is told of the move, once it is accepted; what became of traffic is noted on the error, for whoever tells it.
    While it lasts the lease is kept: a start, a contract or a smoke command may take longer than a lease.
    """
    guard = Guard()
    try:
        with _leased(plan):
            yield guard
    except BaseException as error:
        if guard.because:
            error.add_note(f"traffic stays as it is: {guard.because}")
        else:
            with shielded():
                move, told = _put_back(plan, error)
                if told and not isinstance(error, Lost) and told not in getattr(error, "__notes__", ()):  # a Lost says it already
                    error.add_note(told)
                if move is not None:
                    moved(move)
        raise


@contextlib.contextmanager
def _leased(plan: Plan) -> Iterator[None]:
    """A thread of its own prolongs the lease while it is ours; what speaks against it is told by the next move."""
    ended, context = threading.Event(), contextvars.copy_context()

    def renewed(serving: Serving) -> rollout.Write | None:
        held = rollout.read(serving)
        return rollout.renew(serving, plan.wheel, datetime.now(UTC)) if held and held.wheel == plan.wheel else None

    def keep() -> None:
        while not ended.wait(LOOK):
            with contextlib.suppress(RelaisError):
                _drive(plan.service, renewed)

    threading.Thread(target=context.run, args=(keep,), daemon=True).start()
    try:
        yield
    finally:
        ended.set()


def _put_back(plan: Plan, error: BaseException) -> tuple[Move | None, str]:
    """The guard's own work, and its sentence; what it cannot do it says, for the first error is the one that must reach people."""
    try:
        held = rollout.read(CloudRun().read(plan.service, timeout=GUARD_READ))
        if held is None or held.release != plan.id or held.phase == "done":
            return None, ""
        if held.phase == "fresh":
            return None, f"{held.candidate} is promoted, and traffic stays as it is"
        if held.wheel != plan.wheel:
            return None, f"traffic was not touched: {held.owner} drives this rollout now (epoch {held.epoch})"
        if held.phase in ("deploying", "verifying") or plan.first:  # nobody was moved, or there is nothing to go back to
            release_lock(plan.service, plan.wheel)
            return None, ""
        move = None
        if held.phase != "restoring":
            move = restore(plan.service, plan.wheel, plan.stable, f"{type(error).__name__}: the release did not end well")
        return move, f"traffic is back: {plan.stable}"
    except Lost as lost:
        told = f"traffic was not touched: {lost.what}"
    except RelaisError as problem:
        told = (
            f"TRAFFIC IS NOT BACK: {problem.what}. Recorded split: {plan.stable}. Run the rollback deployment now; "
            "the watch does the same once the lease has run out."
        )
    say(told, level=logging.CRITICAL)
    return None, told
