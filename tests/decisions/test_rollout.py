"""The rollout's rules as pure decisions: the lock, the fence, the one function that builds a move."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from relais import rollout
from relais.config import Canary
from relais.errors import Conflict, Locked, Lost, Overtaken, Refused
from relais.model import LATEST, Commit, Judgement, Plan, ServiceName, Serving, Share, Source, Split, Target, Wheel, Window

NOW = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
SERVICE = ServiceName(project="emergence-469005", region="europe-west1", name="app")
STABLE = Split(shares=(Share(revision="app-old", percent=100),))


def plan(**changes: Any) -> Plan:
    release = {"service": "app", "project": SERVICE.project, "region": SERVICE.region, "repository": "app"}
    source = Source(root="/srv/app", commit=Commit(sha="588c5dc" + "0" * 33))
    return Plan(
        id="20261124-220000-3fa9c2", wheel=Wheel(owner="run-1"), started=NOW, by="FG", service=SERVICE, source=source, release=release,
        title="P1", slug="p1", image="localhost:5000/p/app/app", tag="t1", revision="app-new", traffic_tag="c-3fa9c2", stable=STABLE,
    ).model_copy(update=changes)  # fmt: skip


def serving(*targets: Target, state: rollout.Rollout | None = None, **changes: Any) -> Serving:
    """The service as one read shows it; what it serves is what it is asked for."""
    targets = targets or (Target(revision="app-old", percent=100),)
    notes = {"team": "memory", **({rollout.ANNOTATION: state.model_dump_json()} if state else {})}
    shares = tuple(Share(revision=t.revision, percent=t.percent) for t in targets if t.percent and t.revision != LATEST)
    return Serving(
        service=SERVICE, etag='"e1"', desired=targets, split=Split(shares=shares), annotations=notes, latest_created="app-old",
        latest_ready="app-old",
    ).model_copy(update=changes)  # fmt: skip


def begun(**changes: Any) -> rollout.Rollout:
    return rollout.begin(serving(), plan(), "sha256:1", NOW, {}).rollout.model_copy(update=changes)


def after(write: rollout.Write) -> Serving:
    """The service once a write was accepted."""
    return serving(*write.targets, state=write.rollout, annotations=write.annotations, latest_created="app-new", latest_ready="app-new")


WHEEL = Wheel(owner="run-1")


def promoted_service() -> Serving:
    held = after(rollout.begin(serving(), plan(), "d", NOW, {}))
    return after(rollout.move(held, WHEEL, STABLE.giving("app-new", 100), "fresh", NOW))


def test_the_deploy_takes_the_lock_pins_the_stable_revisions_and_tags_the_candidate_at_0_percent() -> None:
    write = rollout.begin(serving(Target(revision=LATEST, percent=100), split=STABLE), plan(), "sha256:1", NOW, {"canary": None})
    assert write.targets[0] == Target(revision="app-old", percent=100)
    assert Target(revision="app-new", tag="c-3fa9c2") in write.targets
    assert sum(t.percent for t in write.targets) == 100
    assert (write.etag, write.rollout.phase, write.rollout.stable) == ('"e1"', "deploying", STABLE)


def test_a_hotfix_during_the_build_is_found_in_the_read_that_the_deploy_uses() -> None:
    with pytest.raises(Refused, match="traffic changed since the plan: it was app-old 100 %, and is app-hotfix 100 % now"):
        rollout.begin(serving(Target(revision="app-hotfix", percent=100)), plan(), "sha256:1", NOW, {})


@pytest.mark.parametrize(
    ("phase", "says"),
    [("deploying", "wait for it, or cancel its run"), ("rolling", "its lease ends at"), ("held", "promote or the rollback deployment")],
)
def test_a_second_release_is_refused_and_told_who_holds_the_service_since_when_and_how_to_end_it(phase: Any, says: str) -> None:
    with pytest.raises(Locked, match=r"release 20261124-220000-3fa9c2 of 588c5dc holds the service since 2026-11-24 22:00:00 UTC") as told:
        rollout.require_free(serving(state=begun(phase=phase)), NOW + timedelta(minutes=1))
    assert says in str(told.value)


def test_a_second_release_is_told_to_run_the_watch_where_the_lease_has_run_out() -> None:
    with pytest.raises(Locked, match="its lease has run out: run the watch"):
        rollout.require_free(serving(state=begun(phase="rolling")), NOW + timedelta(hours=1))


@pytest.mark.parametrize("phase", ["fresh", "done"])
def test_a_release_that_is_only_looked_after_does_not_hold_up_the_next(phase: Any) -> None:
    rollout.require_free(serving(state=begun(phase=phase)), NOW)


def test_a_move_masks_traffic_and_annotations_on_one_read_and_leaves_foreign_annotations_and_tags() -> None:
    foreign = Target(revision="app-old", tag="preview")
    held = after(rollout.begin(serving(Target(revision="app-old", percent=100), foreign), plan(), "sha256:1", NOW, {}))
    write = rollout.move(held, WHEEL, STABLE.giving("app-new", 10), "rolling", NOW)
    assert {t.revision: t.percent for t in write.targets if t.percent} == {"app-old": 90, "app-new": 10}
    assert foreign in write.targets
    assert write.annotations["team"] == "memory"
    assert write.rollout.written == {"app-old": 90, "app-new": 10}
    assert write.rollout.seq == 2


def test_an_empty_split_is_never_written_because_it_would_mean_latest() -> None:
    with pytest.raises(Refused, match="LATEST"):
        rollout.move(serving(state=begun()), WHEEL, Split(), "rolling", NOW)


def test_whoever_lost_the_wheel_writes_nothing_and_is_told_who_has_it() -> None:
    with pytest.raises(Overtaken, match=r"driven by watch-7 \(epoch 2\) now, not by run-1 \(epoch 1\)"):
        rollout.move(serving(state=begun(owner="watch-7", epoch=2)), WHEEL, STABLE, "restoring", NOW)


def test_traffic_that_somebody_else_moved_is_not_written_over() -> None:
    with pytest.raises(Lost, match="somebody else moved traffic: it is app-hotfix 100 %, and this rollout wrote app-old 100 %"):
        rollout.move(serving(Target(revision="app-hotfix", percent=100), state=begun()), WHEEL, STABLE, "restoring", NOW)


def test_a_wiped_annotation_is_lost_and_not_a_reason_to_write() -> None:
    with pytest.raises(Lost, match="annotation is gone"):
        rollout.move(serving(), WHEEL, STABLE, "restoring", NOW)


def test_an_annotation_that_cannot_be_read_is_a_refusal_and_never_a_guess() -> None:
    with pytest.raises(Refused, match="cannot be read"):
        rollout.require_free(serving(annotations={rollout.ANNOTATION: '{"v": 9}'}), NOW)


def test_restoring_a_service_that_followed_latest_writes_the_name_of_the_stable_revision() -> None:
    held = after(rollout.begin(serving(Target(revision=LATEST, percent=100), split=STABLE), plan(), "sha256:1", NOW, {}))
    rolled = after(rollout.move(held, WHEEL, STABLE.giving("app-new", 100), "rolling", NOW))
    back = rollout.move(rolled, WHEEL, STABLE, "restoring", NOW)
    assert [(t.revision, t.percent) for t in back.targets if t.percent] == [("app-old", 100)]
    assert LATEST not in [t.revision for t in back.targets]


def test_traffic_follows_latest_again_only_if_the_candidate_is_the_latest_in_that_very_read() -> None:
    promoted = promoted_service()
    write = rollout.follow_latest(promoted, WHEEL, NOW)
    assert write is not None
    assert [(t.revision, t.percent) for t in write.targets if t.percent] == [(LATEST, 100)]
    assert rollout.follow_latest(promoted.model_copy(update={"latest_created": "app-newer"}), WHEEL, NOW) is None


def test_the_stable_revision_keeps_its_tag_after_promotion_and_loses_it_when_the_fresh_release_has_been_looked_after() -> None:
    promoted = promoted_service()
    assert {t.tag: t.revision for t in promoted.desired if t.tag} == {"s-3fa9c2": "app-old"}
    done = rollout.enter(promoted, WHEEL, "done", NOW, untag=True)
    assert [t.tag for t in done.targets if t.tag] == []


@pytest.mark.parametrize(
    "meanwhile",
    [{"lease_until": NOW + timedelta(hours=1), "seq": 2}, {"release": "20261124-230000-aaaaaa", "owner": "run-2"}],
    ids=["its driver came back", "another release began"],
)
@pytest.mark.parametrize("foreign", [False, True])
def test_a_rollout_is_taken_over_only_as_it_was_when_that_was_decided(meanwhile: dict[str, Any], foreign: bool) -> None:
    seen = begun(phase="rolling")
    assert rollout.take_over(serving(state=seen), "watch-7", NOW, foreign=foreign, seen=seen).rollout.owner == "watch-7"
    with pytest.raises(Conflict, match="has written since it was looked at"):
        rollout.take_over(serving(state=begun(phase="rolling", **meanwhile)), "watch-7", NOW, foreign=foreign, seen=seen)


def test_an_orphan_that_was_being_put_back_goes_on_to_where_it_was_sent() -> None:
    elsewhere = Split(shares=(Share(revision="app-older", percent=100),))
    restoring = rollout.move(serving(state=begun()), WHEEL, elsewhere, "restoring", NOW).rollout
    assert (restoring.owed, restoring.stable) == (elsewhere, STABLE)
    assert begun(phase="rolling").owed == STABLE
    adopted = rollout.adopt(serving(Target(revision=LATEST, percent=100), split=STABLE), "rollback 1", NOW).rollout
    assert adopted.owed == STABLE, "LATEST may be what is to be left"


@pytest.mark.parametrize("phase", ["restoring", "held", "fresh"])
def test_only_who_is_on_the_way_forward_prolongs_a_lease(phase: Any) -> None:
    late = NOW + rollout.LEASE
    assert rollout.renew(serving(state=begun(phase="rolling")), WHEEL, late) is not None
    assert rollout.renew(serving(state=begun(phase=phase)), WHEEL, late) is None


def test_who_is_refused_over_a_foreign_split_is_told_that_only_a_person_ends_it() -> None:
    with pytest.raises(Locked, match="only a person ends it"):
        rollout.require_free(serving(Target(revision="app-hotfix", percent=100), state=begun(phase="rolling")), NOW + timedelta(hours=1))


def test_taking_over_raises_the_epoch_and_leaves_the_split() -> None:
    taken = rollout.take_over(serving(state=begun()), "watch-7", NOW)
    assert taken.rollout.wheel == Wheel(owner="watch-7", epoch=2)
    assert taken.targets == (Target(revision="app-old", percent=100),)


def test_the_lease_is_renewed_below_half_and_not_before() -> None:
    held = after(rollout.begin(serving(), plan(), "d", NOW, {}))
    assert rollout.renew(held, WHEEL, NOW + timedelta(minutes=2)) is None
    renewed = rollout.renew(held, WHEEL, NOW + timedelta(minutes=3))
    assert renewed is not None
    assert renewed.rollout.lease_until == NOW + timedelta(minutes=8)


@pytest.mark.parametrize(
    ("phase", "minutes", "action"),
    [
        ("rolling", 1, "leave"), ("rolling", 60, "restore"), ("restoring", 60, "restore"), ("deploying", 60, "release"),
        ("verifying", 60, "release"), ("held", 600, "leave"), ("done", 600, "leave"), ("fresh", 60, "leave"), ("fresh", 60 * 25, "finish"),
    ],
)  # fmt: skip
def test_the_watch_restores_orphans_that_moved_users_and_frees_the_lock_of_the_others(phase: Any, minutes: int, action: str) -> None:
    assert rollout.attend(begun(phase=phase), NOW + timedelta(minutes=minutes)) == action


def window(candidate: tuple[int, int], stable: tuple[int, int]) -> Window:
    return Window(
        begin=NOW, end=NOW, percent=10, candidate_requests=candidate[0], candidate_errors=candidate[1], stable_requests=stable[0],
        stable_errors=stable[1],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("candidate", "stable", "word"),
    [
        ((0, 0), (100, 0), "blind"),
        ((5, 0), (100, 0), "inconclusive"),
        ((100, 0), (900, 3), "not worse"),
        ((100, 1), (900, 0), "not worse"),
        ((3, 3), (900, 0), "worse"),
        ((100, 50), (900, 0), "worse"),
        ((100, 50), (900, 450), "not worse"),
    ],
)
def test_a_candidate_is_worse_above_the_slo_and_well_above_the_stable_rate_and_one_error_is_an_accident(
    candidate: tuple[int, int], stable: tuple[int, int], word: str
) -> None:
    assert rollout.judge(window(candidate, stable), slo=0.01).word == word


RULES = Canary.model_validate({"steps": ["10"], "bake": "60s", "deadline": "120s", "blind": "60s", "on_deadline": "promote"})


@pytest.mark.parametrize(
    ("word", "seconds", "decision"),
    [
        ("worse", 1, "rolled back"), ("not worse", 59, "wait"), ("not worse", 60, "advance"), ("inconclusive", 119, "wait"),
        ("inconclusive", 120, "advance"), ("blind", 59, "wait"), ("blind", 60, "rolled back"), ("blind", 500, "rolled back"),
    ],
)  # fmt: skip
def test_nothing_goes_up_before_the_bake_and_nothing_goes_up_blind(word: Any, seconds: int, decision: str) -> None:
    assert rollout.decide(Judgement(word=word), timedelta(seconds=seconds), RULES) == decision
