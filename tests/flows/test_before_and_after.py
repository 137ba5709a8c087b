"""The ends of a release that are not 100 %: looked at only, held for a person, the very first, and what a person does afterwards."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import docker
import pytest
from prefect.client.schemas.objects import State
from seen import pages, run_name
from team import Team

from flows.preflight import preflight
from flows.promote import promote
from flows.rollback import rollback
from flows.watch import Place, watch
from relais.model import ServiceName


def back(service: ServiceName, **parameters: Any) -> State[Any]:
    """The rollback deployment's run."""
    state: State[Any] = rollback(service, **parameters, return_state=True)
    return state


def outside(team: Team, engine: docker.DockerClient) -> dict[str, Any]:
    """Everything that a release could change, outside its own records."""
    service = team.get()
    return {
        "service": service.etag,
        "revisions": sorted(team.revisions()),
        "images": sorted(image.id or "" for image in engine.images.list(name=f"{team.image.partition('/')[0]}/{team.service.project}")),
        "tree": team.git("status", "--porcelain", "--ignored"),
        "head": team.git("rev-parse", "HEAD"),
        "remote": team.git("--git-dir", str(team.remote), "for-each-ref"),
    }


# -- only looked at ----------------------------------------------------------------------------------------------------


def test_preflight_and_plan_only_change_nothing_outside(team: Team, engine: docker.DockerClient) -> None:
    team.baseline()
    commit = team.change_code()
    before = outside(team, engine)
    looked: State[Any] = preflight(str(team.root), return_state=True)
    planned = team.release(plan_only=True)
    assert (looked.name, looked.is_completed()) == ("Planned", True)
    assert (planned.name, planned.is_completed()) == ("Planned", True)
    assert outside(team, engine) == before
    assert f"{team.service.name}-{commit[:7]}" in pages(looked)["plan"]
    assert looked.result().revision == f"{team.service.name}-{commit[:7]}"
    assert run_name(looked) == f"{team.service.name}@{commit[:7]}"


# -- held --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Held:
    """A release until: verified, and the state it ended in."""

    team: Team
    first: str
    candidate: str
    state: State[Any]


def hold(team: Team) -> Held:
    team.release_file(canary={"bake": "0s"})
    first = team.baseline()
    commit = team.change_env()
    return Held(team, first, f"{team.service.name}-{commit[:7]}", team.release(until="verified"))


@pytest.fixture(scope="module")
def held(open_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Held]:
    with pytest.MonkeyPatch.context() as environment:
        yield hold(open_shop(tmp_path_factory.mktemp("held"), environment))


def test_until_verified_leaves_the_candidate_at_0_percent_under_its_own_address(held: Held) -> None:
    assert (held.state.name, held.state.is_completed()) == ("Held", True)
    assert held.team.who_serves() == {held.first: 100}
    assert held.team.tags()[held.team.rollout()["tag"]] == held.candidate
    assert held.team.rollout()["phase"] == "held"


def test_a_held_release_has_a_report_and_is_not_the_active_one(held: Held) -> None:
    (row,) = [line for line in held.team.pushed_file("docs/README.md").splitlines() if held.candidate in line]
    assert "Held" in row
    assert "Active" not in row


def test_a_second_release_is_refused_and_told_who_holds_the_service(held: Held) -> None:
    held.team.change_env()
    state = held.team.release()
    assert (state.name, state.is_failed()) == ("Refused", True)
    assert state.message is not None
    assert f"release {held.team.records()[0].id}" in state.message
    assert "(held, owner" in state.message
    assert "promote or the rollback deployment" in state.message
    assert held.team.who_serves() == {held.first: 100}
    assert len(held.team.revisions()) == 2


def test_the_watch_leaves_what_is_held(held: Held) -> None:
    before = held.team.get().etag
    state: State[Any] = watch([Place(project=held.team.service.project, region=held.team.service.region)], return_state=True)
    assert state.message == "nothing to do"
    assert held.team.get().etag == before


def test_promote_takes_what_is_held_through_the_canary_to_100_percent(held: Held) -> None:
    state: State[Any] = promote(held.team.service, because="looked at by FG", return_state=True)
    assert (state.name, state.is_completed()) == ("Promoted", True)
    assert run_name(state) == held.team.service.name
    assert held.team.who_serves() == {held.candidate: 100}
    assert held.team.rollout()["phase"] == "fresh"
    record = held.team.record
    assert [move.split.percent(held.candidate) for move in record.moves] == [50, 100]
    assert record.state == "Promoted"
    (row,) = [line for line in held.team.pushed_file("docs/README.md").splitlines() if held.candidate in line]
    assert "Active" in row


def test_promote_says_that_nothing_is_held(held: Held) -> None:
    state: State[Any] = promote(held.team.service, return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "nothing is held: the last rollout is fresh" in state.message


def test_rollback_gives_up_what_is_held_and_frees_the_service(team: Team) -> None:
    held = hold(team)
    assert held.state.name == "Held"
    state = back(team.service, because="FG said no")
    assert (state.name, state.is_completed()) == ("RolledBack", True)
    assert team.who_serves() == {held.first: 100}
    assert team.tags() == {}
    assert team.record.state == "RolledBack"
    (row,) = [line for line in team.pushed_file("docs/README.md").splitlines() if held.candidate in line]
    assert "Rolled back" in row
    assert team.release(plan_only=True).name == "Planned", "the lock is free"


def test_a_canary_without_enough_evidence_is_held_at_its_step_and_promote_takes_it_on(team: Team) -> None:
    team.release_file(canary={"bake": "0s", "deadline": "2s", "on_deadline": "hold", "probes": {"rate": "1/s"}})
    first = team.baseline()
    commit = team.change_env()
    candidate = f"{team.service.name}-{commit[:7]}"
    state = team.release()
    assert (state.name, state.is_failed()) == ("Held", True), state.message
    assert state.message is not None
    assert "too few to tell" in state.message
    assert team.who_serves() == {first: 50, candidate: 50}
    promoted: State[Any] = promote(team.service, return_state=True)
    assert promoted.name == "Promoted", promoted.message
    assert team.who_serves() == {candidate: 100}
    assert [move.split.percent(candidate) for move in team.record.moves] == [50, 100]


# -- the first release of a service -------------------------------------------------------------------------------------


def test_the_first_release_makes_the_service(team: Team) -> None:
    commit = team.git("rev-parse", "HEAD")
    state = team.release()
    assert state.name == "Promoted", state.message
    candidate = f"{team.service.name}-{commit[:7]}"
    assert team.who_serves() == {candidate: 100}
    assert team.follows_latest()
    assert team.tags() == {}
    assert team.rollout()["phase"] == "fresh"
    assert team.asks("/api/health").json()["revision"] == candidate
    plan = team.record.plan
    assert plan is not None
    assert any("first release" in line.what for line in plan.lines)
    assert candidate in team.pushed_file("docs/README.md")
    team.change_env()
    assert team.release().name == "Promoted", "and the next one has somebody to be compared with"


def test_a_first_release_until_verified_says_that_it_serves_and_promote_ends_it(team: Team) -> None:
    state = team.release(until="verified")
    assert state.name == "Held", state.message
    assert "is verified and serves, for it is the service's first" in str(state.message)
    assert "rollback" not in str(state.message)
    promoted: State[Any] = promote(team.service, return_state=True)
    assert promoted.name == "Promoted", promoted.message
    assert team.rollout()["phase"] == "fresh"


def test_a_first_release_that_does_not_start_says_why_and_may_be_repeated(team: Team) -> None:
    team.change_env(FAULT_EXIT="1")
    state = team.release()
    assert (state.name, state.is_failed()) == ("Failed", True)
    assert state.message is not None
    assert "did not start" in state.message
    assert "the orders cannot be read" in state.message
    commit = team.change_env()
    again = team.release()
    assert again.name == "Promoted", again.message
    assert team.who_serves() == {f"{team.service.name}-{commit[:7]}": 100}


# -- a person goes back -------------------------------------------------------------------------------------------------


@pytest.fixture
def released(team: Team) -> tuple[str, str]:
    """A release that went well, without a canary: what served before, and what serves."""
    team.release_file(canary=None)
    first = team.baseline(latest=True)
    commit = team.change_env()
    assert team.release().name == "Promoted"
    return first, f"{team.service.name}-{commit[:7]}"


def test_a_rollback_by_hand_goes_back_to_what_served_and_is_recorded(team: Team, released: tuple[str, str]) -> None:
    first, candidate = released
    state = back(team.service, because="orders get lost")
    assert (state.name, state.is_completed()) == ("RolledBack", True)
    assert run_name(state) == team.service.name
    assert team.who_serves() == {first: 100}
    assert not team.follows_latest(), "LATEST is the bad candidate"
    assert team.rollout()["phase"] == "done"
    assert team.tags() == {}
    record = team.record
    assert record.state == "RolledBack"
    assert "orders get lost" in record.summary
    assert "pinned" in record.summary
    (row,) = [line for line in team.pushed_file("docs/README.md").splitlines() if candidate in line]
    assert "Rolled back" in row
    (report,) = [path for path in team.pushed_files("docs") if path.endswith("colour.md")]
    assert "orders get lost" in team.pushed_file(report)
    assert back(team.service).name == "RolledBack", "asked twice, it is the same"
    assert team.who_serves() == {first: 100}


def test_a_rollback_needs_no_record_on_this_machine(team: Team, released: tuple[str, str]) -> None:
    first, _ = released
    for path in (team.home / "records").iterdir():
        path.unlink()
    assert back(team.service).name == "RolledBack"
    assert team.who_serves() == {first: 100}


def test_a_revision_that_was_never_released_by_us_can_be_gone_back_to_by_name(team: Team) -> None:
    first = team.baseline()
    second = f"{team.service.name}-second"
    team.deploy(second)
    team.split({second: 100})
    recorded = back(team.service)
    assert recorded.is_failed()
    assert recorded.message is not None
    assert "no split is recorded on the service" in recorded.message
    state = back(team.service, to=first)
    assert state.name == "RolledBack", state.message
    assert team.who_serves() == {first: 100}


def test_a_revision_that_is_gone_or_not_ready_is_refused_and_others_are_named(team: Team) -> None:
    first = team.baseline()
    broken = f"{team.service.name}-broken"
    with pytest.raises(Exception, match="failed to start"):
        team.deploy(broken, FAULT_EXIT="1")
    gone, unready = back(team.service, to=f"{team.service.name}-gone"), back(team.service, to=broken)
    for state in (gone, unready):
        assert state.is_failed()
        assert state.message is not None
    assert f"revision {team.service.name}-gone is gone" in str(gone.message)
    assert first in str(gone.message)
    assert f"revision {broken} is not ready" in str(unready.message)
    assert team.who_serves() == {first: 100}
    assert team.rollout() == {}


# -- what is worse ------------------------------------------------------------------------------------------------------


def test_a_worse_candidate_goes_back_to_exactly_the_shares_before(team: Team) -> None:
    first, second = team.baseline(), f"{team.service.name}-second"
    team.deploy(second)
    team.split({first: 70, second: 30}, tags={"kept": first})
    commit = team.change_env("feat: faster orders", FAULT_ERROR_RATE="0.5")
    candidate = f"{team.service.name}-{commit[:7]}"
    state = team.release()
    assert (state.name, state.is_failed()) == ("RolledBack", True)
    assert state.message is not None
    assert "worse" in state.message
    assert "pinned" in state.message
    assert team.who_serves() == {first: 70, second: 30}
    assert team.tags() == {"kept": first}
    assert team.rollout()["phase"] == "done"
    record = team.record
    assert record.verdict is not None
    assert record.verdict.word == "rolled back"
    assert record.moves[0].split.by_name() == {first: 35, second: 15, candidate: 50}
    assert record.moves[-1].split.by_name() == {first: 70, second: 30}
    (row,) = [line for line in team.pushed_file("docs/README.md").splitlines() if candidate in line]
    assert "Rolled back" in row
    assert "Active" not in row
    (report,) = [path for path in team.pushed_files("docs") if path.endswith("faster-orders.md")]
    assert "worse" in team.pushed_file(report)
    assert "rolled back" in pages(state)["verdict"].lower()


def test_a_validation_that_fails_at_100_percent_goes_back_stays_pinned_and_leaves_nothing_to_the_next_release(team: Team) -> None:
    team.release_file(canary=None, validate={"http": [{"get": "/api/nothing"}]})
    first = team.baseline(latest=True)
    team.change_env(ONLY_IN_THE_BAD_ONE="1")
    state = team.release()
    assert state.name == "RolledBack"
    assert state.message is not None
    assert "GET /api/nothing" in state.message
    assert "pinned" in state.message
    assert team.who_serves() == {first: 100}
    assert not team.follows_latest()
    assert [finding.outcome for finding in team.record.validate_ or ()] == ["failed"]

    # the next release goes on from what serves, not from the template that was rolled back
    team.release_file(canary=None)
    commit = team.change_env()
    assert team.release().name == "Promoted"
    mended = team.revisions()[f"{team.service.name}-{commit[:7]}"]
    assert "ONLY_IN_THE_BAD_ONE" not in [variable.name for variable in mended.containers[0].env]


def test_a_validation_that_fails_at_100_percent_may_hold_for_a_person(team: Team) -> None:
    team.release_file(canary=None, validate={"http": [{"get": "/api/nothing"}], "on_failure": "hold"})
    first = team.baseline()
    commit = team.change_env()
    state = team.release()
    assert (state.name, state.is_failed()) == ("Held", True)
    assert team.who_serves() == {f"{team.service.name}-{commit[:7]}": 100}
    assert team.rollout()["phase"] == "held"
    assert back(team.service).name == "RolledBack"
    assert team.who_serves() == {first: 100}
