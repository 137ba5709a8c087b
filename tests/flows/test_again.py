"""Releasing again and again: what is the same is not done twice, and names that are taken get a number."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from between import between
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.flow_engine import run_flow_sync
from prefect.states import AwaitingRetry
from seen import says, tasks
from team import Team

from flows.documents import documents
from flows.preflight import preflight
from flows.promote import promote
from flows.release import release
from relais.config import Changes

Story = tuple[Team, list[State[Any]]]


@pytest.fixture(scope="module")
def again(open_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    """One new image, released three times under the same title and suffix; the third with another environment."""
    with pytest.MonkeyPatch.context() as environment:
        team = open_shop(tmp_path_factory.mktemp("again"), environment)
        team.release_file(release={"title": "Spring"}, deploy={"revision_suffix": "spring"}, canary=None)
        team.baseline()
        team.change_code()
        states = [team.release(), team.release()]
        team.change_env()
        yield team, [*states, team.release()]


def test_every_release_is_promoted(again: Story) -> None:
    assert [state.name for state in again[1]] == ["Promoted"] * 3


def test_revisions_whose_name_is_taken_get_a_number(again: Story) -> None:
    team, _ = again
    revisions = [record.plan.revision for record in team.records() if record.plan]
    assert revisions == [f"{team.service.name}-spring{number}" for number in ("", "-2", "-3")]
    assert team.who_serves() == {revisions[-1]: 100}
    assert set(revisions) < team.revisions().keys()


def test_the_same_content_is_built_once_and_the_log_says_so(again: Story) -> None:
    team, states = again
    builds = [record.build for record in team.records() if record.build]
    assert [build.reused for build in builds] == [False, True, True]
    assert len({record.push.digest for record in team.records() if record.push}) == 1
    assert "nothing is built" in says(states[1], "the same content was built before")


def test_every_release_has_a_report_and_a_row_of_its_own(again: Story) -> None:
    team, _ = again
    reports = [path.partition("-spring")[2] for path in team.pushed_files("docs") if "-spring" in path]
    assert sorted(reports) == ["-2.md", "-3.md", ".md"]
    rows = [line for line in team.pushed_file("docs/README.md").splitlines() if "spring" in line]
    assert ["Active" in row for row in rows] == [True, False, False]
    assert ["Archived" in row for row in rows] == [False, True, True]


def test_the_documents_of_an_earlier_release_written_again_change_nothing(again: Story) -> None:
    team, _ = again
    before = {path: team.pushed_file(path) for path in team.pushed_files("docs")}
    commit = team.git("rev-parse", "HEAD")
    state: State[Any] = documents(team.records()[0].id, return_state=True)
    assert state.is_completed()
    assert {path: team.pushed_file(path) for path in team.pushed_files("docs")} == before
    assert team.git("rev-parse", "HEAD") == commit
    assert team.git("status", "--porcelain") == ""


def test_a_release_that_nobody_knows_has_no_documents(again: Story) -> None:  # noqa: ARG001
    state: State[Any] = documents("20200101-000000-abcdef", return_state=True)
    assert state.is_failed()
    assert state.message is not None
    assert "there is no record of release 20200101-000000-abcdef" in state.message


def test_later_releases_know_how_long_each_stage_usually_takes(again: Story) -> None:
    timings = {timing.stage: timing.median for timing in again[0].records()[-1].timings}
    assert all(timings[stage] is not None for stage in ("build", "push", "deploy", "verify", "promote"))


def test_tags_of_the_release_before_are_gone(again: Story) -> None:
    team, _ = again
    assert list(team.tags().values()) == [f"{team.service.name}-spring-2"]


# -- checks that passed before -----------------------------------------------------------------------------------------


@pytest.fixture
def checked(team: Team) -> Team:
    """A team whose check leaves a line in ../ran each time it runs, and whose image gets a built file that Git ignores."""
    team.write(".gitignore", "build_tag.txt\ndist\n")
    team.write(".dockerignore", "*\n!app.py\n!dist\n")
    team.write("dist/shop.js", "1")
    team.release_file(preflight={"checks": [{"name": "units", "run": "echo ran >> ../ran && echo '3 passed in 0.1s'", "passed": 3}]})
    team.baseline()
    return team


def look(team: Team) -> tuple[State[Any], int, list[str]]:
    """A preflight: its state, how often the check has run by now, and what the plan says of it."""
    state: State[Any] = preflight(str(team.root), return_state=True)
    said = [finding.detail for finding in state.result().findings if finding.name == "units"]
    return state, (team.root.parent / "ran").read_text(encoding="utf-8").count("ran"), said


def test_a_check_that_passed_for_the_same_inputs_is_used_again_and_shown_as_cached(checked: Team) -> None:
    assert look(checked)[1] == 1
    state, ran, (said,) = look(checked)
    assert ran == 1
    assert "used again" in said
    assert tasks(state, 1, "check units") == ["Cached"]


def test_an_ignored_file_that_enters_the_image_makes_the_check_run_again(checked: Team) -> None:
    look(checked)
    checked.write("dist/shop.js", "2")
    assert look(checked)[1:] == (2, ["3 passed"])


def test_another_commit_makes_the_check_run_again(checked: Team) -> None:
    look(checked)
    checked.commit("docs: hours")
    assert look(checked)[1] == 2


def test_a_red_check_is_never_used_again(checked: Team) -> None:
    checked.release_file(preflight={"checks": [{"name": "units", "run": "echo ran >> ../ran; false"}]})
    for times in (1, 2):
        state: State[Any] = preflight(str(checked.root), return_state=True)
        assert state.name == "Refused"
        assert (checked.root.parent / "ran").read_text(encoding="utf-8").count("ran") == times


# -- the same run again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("documents", [{}, {"report": None, "index": None}], ids=["its documents moved HEAD", "HEAD is the same"])
def test_a_failed_run_that_is_retried_takes_up_what_it_made_or_makes_it_of_the_new_head(
    team: Team, cloud: Any, monkeypatch: pytest.MonkeyPatch, documents: dict[str, Any]
) -> None:
    """As the button in the UI does it: the same run once more."""
    team.release_file(documents=documents)
    team.baseline()
    team.change_env()
    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        refused = lambda: way.refuse("ListLogEntries", grpc.StatusCode.PERMISSION_DENIED, "Permission denied")  # noqa: E731
        way.before("UpdateService", lambda: way.before("UpdateService", refused))  # the write after the deploy
        state = team.release()
    assert state.name == "RolledBack", state.message
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)
    with get_client(sync_client=True) as prefect:
        prefect.set_flow_run_state(state.state_details.flow_run_id, AwaitingRetry(), force=True)
        run = prefect.read_flow_run(state.state_details.flow_run_id)
    commit = team.git("rev-parse", "HEAD")
    again: Any = run_flow_sync(release, flow_run=run, parameters=run.parameters, return_type="state")
    assert again.name == "Promoted", again.message
    assert team.who_serves() == {f"{team.service.name}-{commit[:7]}": 100}
    assert len(team.revisions()) == (3 if not documents else 2)
    assert len(team.records()) == 1
    assert team.rollout()["epoch"] == 2


def test_a_held_run_that_is_retried_is_refused_and_can_still_be_promoted(team: Team) -> None:
    team.release_file(canary={"bake": "0s"})
    team.baseline()
    team.change_env()
    held = team.release(until="verified")
    with get_client(sync_client=True) as prefect:
        prefect.set_flow_run_state(held.state_details.flow_run_id, AwaitingRetry(), force=True)
        run = prefect.read_flow_run(held.state_details.flow_run_id)
    again: Any = run_flow_sync(release, flow_run=run, parameters=run.parameters, return_type="state")
    assert again.name == "Refused", again.message
    state: State[Any] = promote(team.service, return_state=True)
    assert state.name == "Promoted", state.message


# -- what one run changes ----------------------------------------------------------------------------------------------


def test_a_run_changes_title_slug_changes_and_waits_over_the_file(team: Team) -> None:
    team.release_file(release={"title": "From the file", "next": ["Rest"]})
    team.baseline()
    said = Changes(
        title="From the run", slug="run", tag="v-{slug}", by="FG", changes=("Goods", "- from overseas", "Prices"), bake="7s", deadline="9s"
    )
    state = team.release(plan_only=True, changes=said)
    assert state.name == "Planned"
    plan = team.record.plan
    assert plan is not None
    assert (plan.title, plan.slug, plan.tag, plan.by) == ("From the run", "run", "v-run", "FG")
    assert plan.changes == ({"title": "Goods", "items": ["from overseas"]}, {"title": "Prices", "items": []})
    assert plan.file.canary is not None
    assert (plan.file.canary.bake.total_seconds(), plan.file.canary.deadline.total_seconds()) == (7, 9)
    assert plan.file.release.next == ("Rest",)


def test_a_change_that_cannot_be_is_refused_before_anything_happens(team: Team) -> None:
    team.baseline()
    state = team.release(changes=Changes(skip=("unist",)))
    assert state.is_failed()
    assert state.message is not None
    assert "unist" in state.message
    assert team.record.plan is None


def test_a_git_url_is_cloned_at_the_ref_and_gets_the_documents(team: Team) -> None:
    checks = [{"name": "red", "run": "false"}, {"name": "ready", "run": "test -f ready"}]
    team.release_file(preflight={"setup": ["touch ready"], "checks": checks}, canary=None)
    team.baseline()
    commit = team.change_env()
    team.git("tag", "v7")
    team.git("push", "--quiet", "origin", "v7")
    state = team.release(app=f"file://{team.remote}", ref="v7", changes=Changes(skip=("red",), skipped_by="FG"))
    assert state.name == "Promoted", state.message
    assert team.who_serves() == {f"{team.service.name}-{commit[:7]}": 100}
    (report,) = [path for path in team.pushed_files("docs") if path.endswith("feat-another-colour.md")]
    assert team.git("rev-parse", "HEAD") == commit, "the team's own directory is left alone"
    # who skipped which check is recorded, and told
    plan = team.record.plan
    assert plan is not None
    assert [(f.name, f.outcome, f.detail) for f in plan.findings if f.kind == "check"] == [
        ("red", "skipped", "skipped by FG"), ("ready", "passed", "exit 0"),
    ]  # fmt: skip
    assert "skipped by FG" in team.pushed_file(report)
