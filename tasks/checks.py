"""The team's own checks, side by side, each with a time limit and its output kept; what passed for the same commit is used again."""

import hashlib
import itertools
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.context import TaskRunContext
from prefect.futures import wait

from relais import contract
from relais.clients.commands import run as run_command
from relais.clients.docker import content_key
from relais.config import Check, who
from relais.errors import RelaisError, StepFailed
from relais.model import App, Finding, Source
from tasks.effects import effect, say

SHOWN = 500  # lines of a check's output that go into the run's log; the last ones are in the record in any case


def _key(_context: TaskRunContext, parameters: dict[str, Any]) -> str | None:
    """The same inputs, command and expectations have the same result; without known inputs nothing is used again."""
    if not parameters["inputs"]:
        return None
    known = f"{parameters['inputs']}|{parameters['wanted'].model_dump_json()}|{sys.version}"
    return f"check-{hashlib.sha256(known.encode()).hexdigest()[:32]}"


@task(
    name="check",
    task_run_name="check {wanted.name}",
    cache_policy=CacheKeyFnPolicy(cache_key_fn=_key),
    persist_result=True,
    result_serializer="json",
)
def check(root: str, wanted: Check, inputs: str) -> Finding:  # noqa: ARG001 - `inputs` is what the cache knows it by
    """Run one check; it raises when it is red, so that only what passed is ever used again."""
    count = itertools.count()

    def show(line: str) -> None:
        if next(count) < SHOWN:
            say(f"{wanted.name} | {line}")

    ran = run_command(wanted.run, Path(root), env={}, timeout=wanted.timeout.total_seconds(), on_line=show)
    finding = contract.command_finding(wanted, ran, kind="check", known=_known(root, wanted))
    say(str(finding))
    if finding.outcome not in ("passed", "waived"):
        raise StepFailed(
            f"{wanted.name}: {finding.outcome} ({finding.detail})", where=wanted.run, remedy="see its output", evidence=[finding]
        )
    return finding


def _known(root: str, wanted: Check) -> frozenset[str]:
    """What was red before, one test a line; a file that is not there knows nothing."""
    path = Path(root) / wanted.known if wanted.known else None
    if path is None or not path.is_file():
        return frozenset()
    lines = (line.partition("#")[0].strip() for line in path.read_text(encoding="utf-8", errors="replace").splitlines())
    return frozenset(filter(None, lines))


def inputs_of(app: App, source: Source) -> str:
    """What a check's result depends on: the commit, and every file that the builder gets, ignored ones (a built front end) among them.

    Empty, so that nothing is used again, where tracked files are changed, or in a fresh clone, where checks make what the image needs.
    """
    file = app.file
    if app.url or file.build is None or any(f.name == "clean tree" and f.outcome != "passed" for f in source.findings):
        return ""
    root = Path(app.root)
    dockerfile = str((root / file.build.dockerfile).absolute())
    try:
        key = content_key(root / file.build.context, dockerfile, {}, (), exclude=file.written_by_releases)
    except RelaisError:  # the gates tell what is wrong with the Dockerfile or the context, together with all the rest
        return ""
    return f"{file.service}|{source.commit.sha}|{key}"


def run_all(app: App, source: Source) -> tuple[Finding, ...]:
    """All checks of the release file side by side; skipped and waived ones keep their own words."""
    file, inputs = app.file, inputs_of(app, source)
    skipped = {name: f"skipped by {file.release.skipped_by or file.release.by or who()}" for name in file.release.skip}
    futures = {c.name: check.submit(app.root, c, inputs) for c in file.preflight.checks if c.name not in skipped}
    wait(list(futures.values()))
    findings = []
    for wanted in file.preflight.checks:
        if wanted.name in skipped:
            findings.append(Finding(name=wanted.name, kind="check", outcome="skipped", detail=skipped[wanted.name], required=False))
            continue
        result = futures[wanted.name].result(raise_on_failure=False)
        findings.append(_told(wanted, result, futures[wanted.name].state.name == "Cached"))
    return contract.waived(findings, file.preflight.waivers, datetime.now(UTC).date())


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


@effect("set up")
def set_up(app: App) -> None:
    """Make a fresh clone ready for the checks."""
    for command in app.file.preflight.setup:
        ran = run_command(command, Path(app.root), env={}, timeout=900.0, on_line=lambda line: say(f"  set-up | {line}", level=10))
        if ran.code != 0:
            raise StepFailed(f"set-up `{command}` failed: {ran.reason}", where=app.root, remedy=ran.tail(8) or "it said nothing")
