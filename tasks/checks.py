"""The team's own checks, side by side, each with a time limit and its output kept; what passed for the same commit is used again."""

import hashlib
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.futures import wait

from relais import contract
from relais.clients.commands import run as run_command
from relais.config import Check, Waiver
from relais.errors import StepFailed
from relais.model import App, Commit, Finding
from tasks.effects import effect, say


def _key(_context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """Same service, commit, command and expectations: the same result; nothing is used again for a tree with changes."""
    commit, clean, check = parameters["commit"], parameters["clean"], parameters["wanted"]
    if not clean:
        return None
    known = f"{parameters['service']}|{commit.sha}|{check.model_dump_json()}|{sys.version}|{parameters['root_kind']}"
    return f"check-{hashlib.sha256(known.encode()).hexdigest()[:32]}"


@task(
    name="check", task_run_name="check {wanted.name}", cache_policy=CacheKeyFnPolicy(cache_key_fn=_key), persist_result=True,
    result_serializer="json",
)  # fmt: skip
def check(root: str, service: str, commit: Commit, clean: bool, wanted: Check, root_kind: str) -> Finding:
    """Run one check; it raises when it is red, so that only what passed is ever used again."""
    ran = run_command(
        wanted.run, Path(root), env={}, timeout=wanted.timeout.total_seconds(), on_line=lambda line: say(f"  {wanted.name} | {line}", level=10)
    )
    finding = contract.command_finding(wanted, ran, kind="check")
    say(str(finding))
    if finding.outcome != "passed":
        raise StepFailed(f"{wanted.name}: {finding.outcome} ({finding.detail})", where=wanted.run, remedy="see its output", evidence=[finding])
    return finding


def run_all(app: App, commit: Commit, clean: bool) -> tuple[Finding, ...]:
    """All checks of the release file side by side; skipped and waived ones keep their own words."""
    file = app.file
    begun = datetime.now(UTC)
    skipped = {name: f"skipped by {file.release.skipped_by or file.release.by or 'whoever released'}" for name in file.release.skip}
    futures = {
        wanted.name: check.submit(app.root, file.service, commit, clean, wanted, "clone" if app.url else "directory")
        for wanted in file.preflight.checks
        if wanted.name not in skipped
    }
    wait(list(futures.values()))
    findings = []
    for wanted in file.preflight.checks:
        if wanted.name in skipped:
            findings.append(Finding(name=wanted.name, kind="check", outcome="skipped", detail=skipped[wanted.name], required=False))
            continue
        result = futures[wanted.name].result(raise_on_failure=False)
        findings.append(_told(wanted, result, futures[wanted.name].state.name == "Cached"))
    return tuple(_waived(f, file.preflight.waivers, begun) for f in findings)


def _told(wanted: Check, result: Any, cached: bool) -> Finding:
    if isinstance(result, Finding):
        if cached:
            say(f"{wanted.name}: passed before for this very commit, used again")
            return result.model_copy(update={"reused": True, "detail": f"{result.detail}; used again: it passed for this very commit"})
        return result
    evidence = [f for f in getattr(result, "evidence", ()) if isinstance(f, Finding)]
    if evidence:
        return evidence[0]
    return Finding(name=wanted.name, kind="check", outcome="not proven", detail=f"could not be run: {result}", required=wanted.required)


def _waived(finding: Finding, waivers: Sequence[Waiver], now: datetime) -> Finding:
    waiver = next((w for w in waivers if w.check == finding.name), None)
    if waiver is None or finding.outcome in ("passed", "skipped"):
        return finding
    if waiver.until is not None and now.date() > waiver.until:
        return finding.model_copy(update={"detail": f"{finding.detail}; its waiver by {waiver.by} ended on {waiver.until}"})
    return finding.model_copy(update={"outcome": "waived", "detail": f"waived by {waiver.by}: {waiver.because} ({finding.outcome}: {finding.detail})"})


@effect("set up")
def set_up(app: App) -> None:
    """Make a fresh clone ready for the checks."""
    for command in app.file.preflight.setup:
        ran = run_command(command, Path(app.root), env={}, timeout=900.0, on_line=lambda line: say(f"  set-up | {line}", level=10))
        if ran.code != 0:
            raise StepFailed(f"set-up `{command}` failed: {ran.reason}", where=app.root, remedy=ran.tail(8) or "it said nothing")
