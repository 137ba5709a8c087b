"""A release to 100 %, through the canary: what its user finds afterwards, in the cloud, in Prefect, in the repository and in the record."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker
import pytest
from prefect.client.schemas.objects import State
from seen import pages, run_name, subflows
from team import Team

from flows.documents import documents
from flows.watch import Place, watch


@dataclass(frozen=True)
class Story:
    """One release that went well: the team, the revision before, the commit, the end."""

    team: Team
    first: str
    commit: str
    state: State[Any]

    @property
    def candidate(self) -> str:
        return f"{self.team.service.name}-{self.commit[:7]}"


@pytest.fixture(scope="module")
def promoted(open_shop: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with pytest.MonkeyPatch.context() as environment:
        team = open_shop(tmp_path_factory.mktemp("promoted"), environment)
        counter = {"when": {"post": "/api/orders"}, "increments": "shop_orders_total", "within": "5s"}
        asks = "python3 -c \"from urllib.request import urlopen; urlopen('{url}/api/sessions', timeout=10)\""
        smoke = {"name": "smoke", "run": f"{asks} && echo all good", "expect": ["all good"]}
        team.release_file(canary={"steps": [10, 50]}, validate={"counters": [counter], "smoke": [smoke]})
        first = team.baseline(commit=team.git("rev-parse", "HEAD"))
        team.commit("fix: prices without tax")
        commit = team.change_code("feat: goods from overseas")
        yield Story(team, first, commit, team.release())


def test_it_ends_green_and_says_who_serves(promoted: Story) -> None:
    assert promoted.state.is_completed()
    assert promoted.state.name == "Promoted"
    assert promoted.state.message is not None
    assert promoted.state.message.startswith(f"{promoted.candidate} serves 100 %: not worse at 10 %")


def test_all_traffic_goes_to_the_candidate(promoted: Story) -> None:
    assert promoted.team.who_serves() == {promoted.candidate: 100}
    assert promoted.team.asks("/api/health").json()["revision"] == promoted.candidate


def test_the_digest_that_serves_is_the_one_built_and_the_one_in_the_registry(promoted: Story, engine: docker.DockerClient) -> None:
    record = promoted.team.record
    assert record.build is not None
    assert record.push is not None
    built = engine.images.get(record.build.ref)
    assert built.id == record.build.id
    assert engine.images.get_registry_data(record.build.ref).id == record.push.digest
    assert promoted.team.image_of(promoted.candidate) == f"{record.plan.image if record.plan else ''}@{record.push.digest}"
    assert record.push.digest in [name.partition("@")[2] for name in built.attrs["RepoDigests"]]


def test_the_image_says_which_commit_it_was_built_from(promoted: Story, engine: docker.DockerClient) -> None:
    record = promoted.team.record
    assert record.build is not None
    labels = engine.images.get(record.build.ref).labels
    assert labels["org.opencontainers.image.revision"] == promoted.commit
    assert labels["relais.dev/release"] == record.id
    assert not record.build.reused
    assert record.build.platform == "linux/amd64"
    assert (promoted.team.root / "build_tag.txt").read_text(encoding="utf-8") == f"IMAGE_TAG={record.build.ref.rpartition(':')[2]}\n"


def test_each_step_of_the_canary_and_the_promotion_is_a_recorded_move(promoted: Story) -> None:
    moves = [move.split.percent(promoted.candidate) for move in promoted.team.record.moves]
    assert moves == [10, 50, 100]
    assert [window.percent for window in promoted.team.record.windows] == [10, 50]
    assert all(window.candidate_requests >= 10 and window.stable_requests >= 10 for window in promoted.team.record.windows)


def test_the_report_and_the_index_are_committed_and_pushed(promoted: Story) -> None:
    team = promoted.team
    assert "docs/" + _report(promoted).name in team.pushed_files("docs")
    report = team.pushed_file(f"docs/{_report(promoted).name}")
    assert team.record.push is not None
    for fact in (promoted.candidate, promoted.commit[:7], team.record.push.digest, "feat: goods from overseas"):
        assert fact in report
    (row,) = [line for line in team.pushed_file("docs/README.md").splitlines() if promoted.candidate in line]
    assert "Active" in row
    assert team.git("status", "--porcelain") == ""
    assert team.git("rev-parse", "HEAD") == team.git("rev-parse", "origin/main")
    assert team.git("log", "-1", "--format=%s") == f"Release {promoted.candidate}: documents"


def _report(promoted: Story) -> Path:
    (found,) = (promoted.team.root / "docs").glob("*-feat-goods-from-overseas.md")
    return found


def test_title_and_changes_come_from_the_commits_since_what_served(promoted: Story) -> None:
    plan = promoted.team.record.plan
    assert plan is not None
    assert plan.title == "feat: goods from overseas"
    assert plan.slug == "feat-goods-from-overseas"
    said = [change["title"] for change in plan.changes]
    assert [title.partition(" ")[2] for title in said] == ["feat: goods from overseas", "fix: prices without tax"]


def test_the_record_is_complete(promoted: Story) -> None:
    record = promoted.team.record
    assert (record.state, record.problem) == ("Promoted", None)
    assert record.ended is not None
    assert record.verdict is not None
    assert record.verdict.word == "promoted"
    for findings in (record.verify, record.proof, record.validate_, record.documents):
        assert findings
        assert {finding.outcome for finding in findings} == {"passed"}
    in_production = [finding.name for finding in record.validate_ or () if finding.kind in ("counter", "smoke")]
    assert in_production == ["counter shop_orders_total", "smoke"]
    assert {revision.name: revision.percent for revision in record.revisions or ()} == {promoted.candidate: 100, promoted.first: 0}
    assert record.metrics is not None
    assert "shop_orders_total 1" in record.metrics["shop"]
    stages = [timing.stage for timing in record.timings]
    assert stages == ["plan", "build", "push", "deploy", "verify", "canary", "promote", "proof", "validate", "documents"]


def test_the_candidates_tag_is_gone_and_the_stable_revision_stays_ready_to_take_over(promoted: Story) -> None:
    tags = promoted.team.tags()
    assert list(tags.values()) == [promoted.first]
    assert promoted.team.rollout()["tag"] not in tags


def test_the_service_tells_the_rollout_and_the_candidate_tells_the_release(promoted: Story) -> None:
    rollout, record = promoted.team.rollout(), promoted.team.record
    assert (rollout["release"], rollout["phase"], rollout["candidate"]) == (record.id, "fresh", promoted.candidate)
    assert (rollout["commit"], rollout["digest"]) == (promoted.commit, record.push.digest if record.push else "")
    assert rollout["stable"]["shares"] == [{"revision": promoted.first, "percent": 100}]
    stamps = dict(promoted.team.revisions()[promoted.candidate].annotations)
    assert (stamps["relais.dev/release"], stamps["relais.dev/commit"]) == (record.id, promoted.commit)
    assert promoted.first in stamps["relais.dev/stable"]


def test_runs_have_names_that_people_read(promoted: Story) -> None:
    name = f"{promoted.team.service.name}@{promoted.commit[:7]}"
    assert run_name(promoted.state) == name
    assert subflows(promoted.state) == [name, promoted.candidate]


def test_plan_checklist_verdict_and_report_are_pages_of_the_run(promoted: Story) -> None:
    found = pages(promoted.state)
    assert {"plan", "checklist", "verdict", "report", "revision"} <= found.keys()
    assert f"{promoted.candidate}" in found["plan"]
    assert "9 of 11 passed" in found["checklist"]
    assert "❌" not in found["checklist"]
    assert "promoted" in found["verdict"].lower()
    assert found["report"].rstrip("\n") == _report(promoted).read_text(encoding="utf-8").rstrip("\n")
    assert f"record-{promoted.team.record.id}" in found


def test_the_same_record_gives_the_same_documents_again(promoted: Story) -> None:
    team, report = promoted.team, _report(promoted)
    before = {path: path.read_bytes() for path in (report, team.root / "docs" / "README.md")}
    commits = team.git("rev-list", "--count", "main")
    report.unlink()
    state: State[Any] = documents(team.record.id, return_state=True)
    assert state.is_completed()
    assert {path: path.read_bytes() for path in before} == before
    assert team.git("status", "--porcelain") == ""
    assert team.git("rev-list", "--count", "main") == commits
    assert run_name(state) == team.record.id


def test_the_watch_leaves_a_fresh_release_within_its_time(promoted: Story) -> None:
    before = promoted.team.get().etag
    service = promoted.team.service
    state: State[Any] = watch([Place(project=service.project, region=service.region)], return_state=True)
    assert state.message == "nothing to do"
    assert promoted.team.get().etag == before


def test_a_later_plain_deploy_gets_no_traffic_where_traffic_was_pinned_before(promoted: Story) -> None:
    assert promoted.state.message is not None
    assert "stays pinned" in promoted.state.message
    promoted.team.deploy(f"{promoted.team.service.name}-plain")
    assert promoted.team.who_serves() == {promoted.candidate: 100}


FINISHES = {
    "latest, where it was pinned": ("latest", False, True),
    "pinned, where it followed LATEST": ("pinned", True, False),
    "as before, where it followed LATEST": ("", True, True),  # the default, also without a canary
}


@pytest.mark.parametrize(("finish", "followed", "follows"), FINISHES.values(), ids=FINISHES.keys())
def test_a_later_plain_deploy_serves_where_traffic_follows_latest(team: Team, finish: str, followed: bool, follows: bool) -> None:
    team.release_file(canary={"finish": finish, "bake": "0s"} if finish else None)
    team.baseline(latest=followed)
    commit = team.change_env()
    state = team.release()
    assert state.name == "Promoted"
    assert state.message is not None
    assert ("follows LATEST" in state.message, "stays pinned" in state.message) == (follows, not follows)
    assert team.follows_latest() is follows
    team.deploy(f"{team.service.name}-plain")
    served = f"{team.service.name}-plain" if follows else f"{team.service.name}-{commit[:7]}"
    assert team.who_serves() == {served: 100}
