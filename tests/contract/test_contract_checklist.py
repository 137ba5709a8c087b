"""The final checklist says what the record says, and where it is silent, why."""

from datetime import UTC, datetime
from typing import Any

import pytest

from relais.contract import checklist
from relais.model import (
    Built,
    Candidate,
    Commit,
    Finding,
    Move,
    Outcome,
    Plan,
    Problem,
    Pushed,
    Record,
    ServiceName,
    Share,
    Source,
    Split,
    Timing,
    Verdict,
    Wheel,
)

BEGIN = datetime(2025, 10, 9, 12, 2, tzinfo=UTC)
DIGEST = "sha256:" + "4" * 64
NAMES = [
    "Docker image built and pushed", "Cloud Run revision deployed", "Health check answers", "Metrics published", "Start-up log as expected",
    "Traffic routed to the new revision", "Report written", "Index updated", "Synchronisation page updated", "Journal updated",
    "Smoke tests passed",
]  # fmt: skip
RELEASE: dict[str, Any] = {
    "service": "app", "project": "project-1", "region": "europe-west1", "repository": "app",
    "verify": {
        "http": [
            {"get": "/api/sessions"},
            {"get": "/api/health"},
            {"get": "/api/metrics", "metrics": [{"group": "new", "names": [*"abcde"]}, {"group": "old", "names": [*"fgh"]}]},
        ],
        "logs": {"expect": ["Worker 0 started", "Worker 1 started"]},
    },
    "validate": {"smoke": {"name": "smoke", "run": "python smoke.py {url}"}},
    "documents": {
        "report": "docs/{date}-{slug}.md", "index": "docs/README.md", "sync": {"path": "SYNC.md", "section": "Codex"},
        "journal": "journal.md",
    },
}  # fmt: skip


def plan(**release: Any) -> Plan:
    return Plan(
        id="20251009-120200-3fa9c2", wheel=Wheel(owner="run"), started=BEGIN, by="FG",
        service=ServiceName(project="project-1", region="europe-west1", name="app"),
        source=Source(root="/srv/app", commit=Commit(sha="4" * 40)), release={**RELEASE, **release}, title="P1", slug="p1",
        image="registry/app/app", tag="t1", revision="app-p1", traffic_tag="r-3fa9c2",
    )  # fmt: skip


def seen(name: str, kind: str, outcome: Outcome = "passed", detail: str = "", **more: Any) -> Finding:
    return Finding(name=name, kind=kind, outcome=outcome, detail=detail, **more)


CONTRACT = (
    seen("GET /api/sessions", "http", detail="200 in 0.10 s"),
    seen("GET /api/health", "http", detail="200 in 0.01 s"),
    seen("GET /api/metrics", "http", detail="200 in 0.02 s"),
    seen("metrics: new", "metrics", detail="5 of 5 published"),
    seen("metrics: old", "metrics", detail="3 of 3 published"),
)
VERIFIED = (*CONTRACT, seen("log: Worker 0 started", "logs"), seen("log: Worker 1 started", "logs"), seen("log: nothing forbidden", "logs"))
FULL = Split(shares=(Share(revision="app-p1", percent=100),))
OLD = Split(shares=(Share(revision="app-old", percent=100),))
ASKED = Record(id="20251009-120200-3fa9c2", app="/srv/app", started=BEGIN)
BUILT = Built(id="sha256:7", ref="registry/app/app:t1", key="k", size=1, platform="linux/amd64")
DEPLOYED = ASKED.plus(
    plan=plan(), build=BUILT, push=Pushed(ref="registry/app/app:t1", digest=DIGEST, pinned=f"registry/app/app@{DIGEST}"),
    deploy=Candidate(revision="app-p1", digest=DIGEST),
)  # fmt: skip
PROMOTED = DEPLOYED.plus(
    verify=VERIFIED, verdict=Verdict(word="promoted", because="nothing is worse"), moves=(Move(at=BEGIN, split=FULL, because="all"),),
    proof=(seen("digest that serves", "proof", detail=DIGEST), seen("split that serves", "proof", detail="app-p1 100 %")),
    validate_=(*CONTRACT, seen("smoke", "smoke", "skipped", "no credentials", required=False)),
    documents=tuple(seen(name, "document", detail=f"{name}.md") for name in ("report", "index", "synchronisation page", "journal")),
    state="Promoted", summary="app-p1 serves 100 %", ended=BEGIN,
)  # fmt: skip


def boxes(record: Record) -> dict[str, Finding]:
    return {box.name: box for box in checklist(record)}


def words(record: Record) -> dict[str, Outcome]:
    return {name: box.outcome for name, box in boxes(record).items()}


def test_a_promoted_release_has_every_box_checked_and_its_skipped_smoke_test_is_called_skipped() -> None:
    found = boxes(PROMOTED)
    assert list(found) == NAMES
    assert found.pop("Smoke tests passed").outcome == "skipped"
    assert {box.outcome for box in found.values()} == {"passed"}


DETAILS = [
    ("Docker image built and pushed", DIGEST),
    ("Cloud Run revision deployed", "app-p1"),
    ("Health check answers", "GET /api/health: 200 in 0.01 s in production"),
    ("Metrics published", "8 of 8 in production"),
    ("Start-up log as expected", "2 expected lines, nothing forbidden"),
    ("Traffic routed to the new revision", "app-p1 100 %"),
    ("Report written", "report.md"),
    ("Smoke tests passed", "smoke: no credentials"),
]


@pytest.mark.parametrize(("name", "detail"), DETAILS)
def test_each_box_says_what_it_rests_on(name: str, detail: str) -> None:
    assert boxes(PROMOTED)[name].detail == detail


def test_no_box_blocks_anything() -> None:
    assert not any(box.blocks for record in (ASKED, DEPLOYED, PROMOTED) for box in checklist(record))


def test_a_record_without_a_plan_proves_nothing() -> None:
    assert set(words(ASKED).values()) == {"not proven"}


def test_a_refused_release_reached_nothing_and_says_why() -> None:
    refused = ASKED.plus(plan=plan(), state="Refused", summary="no", ended=BEGIN, problem=Problem(kind="Refused", what="ruff: exit 1"))
    assert words(refused) == dict.fromkeys(NAMES, "skipped")
    assert boxes(refused)["Cloud Run revision deployed"].detail == "not reached: ruff: exit 1"


def test_a_failed_stage_is_failed_and_those_after_it_were_not_reached() -> None:
    failed = ASKED.plus(
        plan=plan(), state="Failed", ended=BEGIN, problem=Problem(kind="StepFailed", what="the build failed"),
        timings=(Timing(stage="build", seconds=4),),
    )  # fmt: skip
    assert words(failed) == {**dict.fromkeys(NAMES, "skipped"), "Docker image built and pushed": "failed"}


def test_a_candidate_that_was_only_verified_is_reported_at_0_percent() -> None:
    held = DEPLOYED.plus(verify=VERIFIED, state="Held", summary="app-p1 is verified at 0 %", ended=BEGIN)
    found = boxes(held)
    assert found["Health check answers"].detail.endswith("at 0 %")
    assert (found["Traffic routed to the new revision"].outcome, found["Traffic routed to the new revision"].detail) == (
        "skipped", "app-p1 is verified at 0 %",
    )  # fmt: skip


def test_a_rolled_back_release_did_not_get_its_traffic() -> None:
    back = PROMOTED.plus(state="RolledBack", verdict=Verdict(word="rolled back", because="31 of 58 requests failed"), rollback=())
    box = boxes(back)["Traffic routed to the new revision"]
    assert (box.outcome, box.detail) == ("failed", "rolled back: 31 of 58 requests failed")


def test_a_held_rollout_is_not_proven() -> None:
    assert words(PROMOTED.plus(verdict=Verdict(word="held", because="too few")))["Traffic routed to the new revision"] == "not proven"


def test_a_promotion_that_nobody_looked_at_is_not_proven_and_one_that_was_put_back_failed() -> None:
    killed = PROMOTED.plus(state="Interrupted", proof=None, verdict=None)
    assert words(killed)["Traffic routed to the new revision"] == "not proven"
    back = killed.plus(moves=(*killed.moves, Move(at=BEGIN, split=OLD, because="the watch")))
    assert words(back)["Traffic routed to the new revision"] == "failed"


def test_missing_metrics_and_log_lines_are_named() -> None:
    metrics = seen("metrics: new", "metrics", "failed", "2 of 5 published")
    log = seen("log: Worker 1 started", "logs", "failed", "in no line")
    red = (*CONTRACT[:3], metrics, log)
    found = boxes(DEPLOYED.plus(verify=red, state="Failed", problem=Problem(kind="StepFailed", what="the contract is not met")))
    assert {found["Metrics published"].outcome, found["Start-up log as expected"].outcome} == {"failed"}
    assert found["Metrics published"].detail == "metrics: new: 2 of 5 published"
    assert found["Start-up log as expected"].detail == "Worker 1 started: in no line"


def test_a_metrics_page_that_does_not_answer_fails_its_box() -> None:
    red = (seen("GET /api/health", "http"), seen("GET /api/metrics", "http", "failed", "status 200 expected, 404 came"))
    assert "404 came" in boxes(DEPLOYED.plus(verify=red))["Metrics published"].detail


def test_what_the_release_file_does_not_ask_for_is_skipped_with_that_reason() -> None:
    bare = PROMOTED.plus(plan=plan(verify={"logs": {"forbid": []}}, validate={}, documents={}), documents=(), validate_=(), verify=())
    found = boxes(bare)
    assert {found[name].detail for name in NAMES[6:10]} == {"the release file names none"}
    assert {found[name].outcome for name in (*NAMES[2:5], *NAMES[6:])} == {"skipped"}


def test_documents_are_not_proven_until_they_are_written() -> None:
    assert {box.detail for name, box in boxes(PROMOTED.plus(documents=None)).items() if name in NAMES[6:10]} == {"not written yet"}


def test_an_image_that_was_not_built_is_said_to_be_released_by_digest() -> None:
    found = boxes(DEPLOYED.plus(plan=plan(build=False, deploy={"image": "serving"}), build=None))
    assert found["Docker image built and pushed"].detail == f"released by digest, not built, {DIGEST}"
