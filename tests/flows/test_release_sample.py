"""The sample of the demonstration, released whole: its own checks, image, contract and documents, as its release file has them."""

import os
import subprocess
import sys
from typing import Any

from google.cloud import run_v2
from team import CALL, ROOT, Team

from flows.documents import documents
from flows.release import release
from relais.config import Changes
from relais.model import Record

SERVICE = "projects/emergence-469005/locations/europe-west1/services/emergence-app"
LAY_OUT = ROOT / "examples" / "emergence" / "lay_out.py"


def lay_out(command: str, team: Team) -> None:
    """One step of the sample's story, in a folder beside the team's."""
    done = subprocess.run(
        [sys.executable, str(LAY_OUT), command, str(team.root.with_name("emergence-app"))],
        env=dict(os.environ), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_sample_is_released_to_100_percent_with_its_own_checks_and_documents(team: Team) -> None:
    root = team.root.with_name("emergence-app")
    for command in ("repo", "baseline", "next"):
        lay_out(command, team)
    state: Any = release(str(root), changes=Changes(bake="2s", deadline="20s"), return_state=True)
    assert state.name == "Promoted", state.message

    service: run_v2.Service = team.clients.services.get_service(name=SERVICE, timeout=CALL)
    assert service.latest_ready_revision.endswith("emergence-app-p1-memory")
    assert [(one.type_, one.percent) for one in service.traffic if one.percent] == [
        (run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST, 100)
    ], "finish: latest"

    record: Record = team.record
    assert record.plan is not None
    checks = {finding.name: (finding.outcome, finding.detail) for finding in record.plan.findings if finding.kind == "check"}
    assert {outcome for outcome, _ in checks.values()} == {"passed"}
    assert "15 passed" in checks["memory tests"][1]
    assert {finding.name: finding.outcome for finding in record.validate_ or ()}["smoke"] == "skipped", "it has no credentials here"
    assert [text.path for text in record.plan.texts] == [
        "AGENT_SYNC.md", "docs/memory-roadmap.md", "AGENTS.md", "CODEV_PROTOCOL.md", "docs/passation.md",
    ]  # fmt: skip

    def pushed(path: str) -> str:
        return team.git("--git-dir", f"{root}.git", "show", f"main:{path}")

    report = next(finding.detail for finding in record.documents or () if finding.name == "report")
    assert report.endswith("-deploy-p1-memory.md")
    assert "emergence-app-p1-memory" in pushed(report)
    assert "Codex (cloud)" in pushed(report)
    for page in ("docs/deployments/README.md", "AGENT_SYNC.md", "docs/passation.md"):
        assert "emergence-app-p1-memory" in pushed(page), page
    assert team.git("-C", str(root), "status", "--porcelain") == ""

    # the same record gives the same documents again, edits of pages that people keep included
    commit = team.git("-C", str(root), "rev-parse", "HEAD")
    written: Any = documents(record.id, return_state=True)
    assert written.is_completed()
    assert team.git("-C", str(root), "status", "--porcelain") == ""
    assert team.git("-C", str(root), "rev-parse", "HEAD") == commit
