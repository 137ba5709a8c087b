"""The watch: what a release leaves behind when its process is killed, and what becomes of a fresh one."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from between import between
from prefect.client.schemas.objects import State
from team import Team, eventually

from flows.rollback import rollback
from flows.watch import Place, watch

LONG_AGO = "2026-01-01T00:00:00Z"


def watched(team: Team) -> State[Any]:
    """One run of the watch over the team's project."""
    state: State[Any] = watch([Place(project=team.service.project, region=team.service.region)], return_state=True)
    return state


@contextmanager
def killed_in(team: Team, phase: str) -> Iterator[None]:
    """A release in a process of its own, killed with no chance to tidy up once its rollout is in this phase."""
    run = team.start_release()
    log = team.root.with_name("release.log")
    try:
        eventually(lambda: run.poll() is not None or team.rollout().get("phase") == phase, 60)
        assert run.poll() is None, log.read_text(errors="replace")[-3000:]
    finally:
        run.send_signal(signal.SIGKILL)
        run.wait(10)
    yield


def row_of(team: Team, candidate: str) -> str:
    (row,) = [line for line in team.pushed_file("docs/README.md").splitlines() if candidate in line]
    return row


def test_a_release_that_dies_in_the_middle_of_a_bake_is_put_back_once_its_lease_is_over(team: Team) -> None:
    team.release_file(canary={"bake": "60s", "deadline": "90s"})
    first = team.baseline()
    commit = team.change_env("feat: faster orders")
    candidate = f"{team.service.name}-{commit[:7]}"
    with killed_in(team, "rolling"):
        assert team.who_serves() == {first: 50, candidate: 50}
    # while the lease lasts its owner may be alive, and the watch keeps its hands off
    assert watched(team).message == "nothing to do"
    assert team.who_serves() == {first: 50, candidate: 50}
    team.annotate(lease_until=LONG_AGO)
    state = watched(team)
    assert state.is_completed()
    assert state.message == f"{team.service.name}: {first} 100 % serves again"
    assert team.who_serves() == {first: 100}
    assert team.tags() == {}
    assert team.rollout()["phase"] == "done"
    record = team.record
    assert record.state == "RolledBack"
    assert "its driver died in the phase rolling" in record.summary
    assert "Rolled back" in row_of(team, candidate)
    (report,) = [path for path in team.pushed_files("docs") if path.endswith("faster-orders.md")]
    assert "driver died" in team.pushed_file(report)
    team.release_file(canary=None)
    assert team.release(plan_only=True).name == "Planned", "the lock is free"


def test_a_release_that_dies_while_it_deploys_loses_its_lock_and_its_tag_and_nobody_was_moved(team: Team) -> None:
    first = team.baseline()
    commit = team.change_env(FAULT_SLOW_START="5")
    with killed_in(team, "deploying"):
        assert team.rollout()["candidate"] == f"{team.service.name}-{commit[:7]}"
    refused = team.release()
    assert refused.name == "Refused"
    assert refused.message is not None
    assert f"release {team.rollout()['release']} of {commit[:7]} holds the service" in refused.message
    assert "its lease ends at" in refused.message
    team.annotate(lease_until=LONG_AGO)
    state = watched(team)
    assert state.message == f"{team.service.name}: the lock is free again"
    assert team.who_serves() == {first: 100}
    assert team.tags() == {}
    assert team.rollout()["phase"] == "done"
    dead = next(record for record in team.records() if record.id == team.rollout()["release"])
    assert (dead.state, dead.summary) == ("Interrupted", "its driver died in the phase deploying; no user was moved")
    assert "Interrupted" in row_of(team, f"{team.service.name}-{commit[:7]}")
    assert team.release(plan_only=True).name == "Planned"


def test_a_fresh_release_ends_after_its_time_whoever_serves_by_then(team: Team) -> None:
    team.release_file(canary=None, validate={"watch": "0s"})
    first = team.baseline()
    team.change_env()
    assert team.release().name == "Promoted"
    assert list(team.tags().values()) == [first], "ready to take over while the release is fresh"
    team.split({first: 100}, tags=team.tags())  # somebody went back by hand
    assert watched(team).message == f"{team.service.name}: the fresh release was looked after"
    assert team.rollout()["phase"] == "done"
    assert team.tags() == {}
    assert team.who_serves() == {first: 100}
    assert watched(team).message == "nothing to do"


def test_what_a_person_moved_in_a_rollout_is_told_and_not_undone(team: Team) -> None:
    first = team.baseline()
    commit = team.change_env()
    candidate = f"{team.service.name}-{commit[:7]}"
    assert team.release(until="verified").name == "Held"
    team.annotate(phase="rolling", lease_until=LONG_AGO)
    team.split({first: 80, candidate: 20})
    state = watched(team)
    assert state.is_failed()
    assert state.message is not None
    assert "somebody else moved traffic" in state.message
    assert team.who_serves() == {first: 80, candidate: 20}


def test_a_release_that_begins_while_the_watch_is_at_work_keeps_its_wheel(team: Team, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its write there may be minutes: other services come first."""
    team.release_file(canary=None, validate={"watch": "0s"})
    team.baseline()
    commit = team.change_env()
    assert team.release().name == "Promoted"
    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        begun = {"release": "20261124-230000-aaaaaa", "owner": "another run", "phase": "deploying", "lease_until": "2099-01-01T00:00:00Z"}
        way.before("UpdateService", lambda: team.annotate(**begun))
        assert watched(team).message == "nothing to do"
    assert {name: team.rollout()[name] for name in begun} == begun
    assert team.who_serves() == {f"{team.service.name}-{commit[:7]}": 100}


def test_a_rollback_to_a_named_revision_that_dies_before_it_is_proven_is_finished_where_it_was_going(team: Team) -> None:
    first = team.baseline()
    named = team.service.name + "-named"
    team.deploy(named)
    team.change_env()
    team.release_file(canary=None)
    assert team.release().name == "Promoted"
    assert rollback(team.service, to=named, return_state=True).name == "RolledBack"
    team.annotate(phase="restoring", lease_until=LONG_AGO)
    state = watched(team)
    assert state.message == f"{team.service.name}: {named} 100 % serves again"
    assert team.who_serves() == {named: 100}
    assert team.rollout()["stable"]["shares"] == [{"revision": first, "percent": 100}]


def test_a_place_that_cannot_be_read_does_not_keep_the_watch_from_the_others(team: Team) -> None:
    team.release_file(canary=None, validate={"watch": "0s"})
    team.baseline()
    team.change_env()
    assert team.release().name == "Promoted"
    places = [Place(project="UPPER CASE", region="nowhere"), Place(project=team.service.project, region=team.service.region)]
    state: State[Any] = watch(places, return_state=True)
    assert state.is_failed()
    assert team.rollout()["phase"] == "done"
