"""After 100 %: what serves, the contract on the production URL, counters that move, the team's own smoke command."""

import logging
import time
from collections.abc import Callable
from pathlib import Path

from prefect.blocks.system import Secret

from relais import contract
from relais.clients.commands import run as run_command
from relais.clients.contract import ask, request, sampled
from relais.clients.http import Http
from relais.clients.registry import ArtifactRegistry
from relais.clients.run import CloudRun
from relais.config import Counter, Smoke, fill
from relais.errors import RelaisError, StepFailed
from relais.model import Finding, Plan, Pushed, Revision, ServiceName, Split, blocking
from tasks.effects import effect, say

PATIENCE = 10.0  # seconds: the production URL may have cold instances


@effect("prove what serves", retries=2)
def what_serves(plan: Plan, pushed: Pushed, timeout: float = 60.0) -> tuple[Finding, ...]:
    """The digest that serves is the digest that was built, and the split, once it has settled, the one that was asked for."""
    run, deadline = CloudRun(), time.monotonic() + timeout
    while not (serving := run.read(plan.service)).settled and time.monotonic() < deadline:
        time.sleep(0.25)
    wanted = Split().giving(plan.revision, 100)
    image = next((r.image for r in run.revisions(plan.service) if r.name == plan.revision), "")
    findings = tuple(contract.serves_findings(serving.split, wanted, image.partition("@")[2], pushed.digest))
    for finding in findings:
        say(str(finding))
    if red := blocking(findings):
        raise StepFailed(
            "what serves is not what was built: " + "; ".join(f.detail for f in red), where=str(plan.service),
            remedy="somebody changed the service meanwhile: look at its revisions", evidence=findings,
        )  # fmt: skip
    return findings


@effect("prove the split", retries=2)
def serves(service: ServiceName, split: Split, timeout: float = 60.0) -> tuple[Finding, ...]:
    """Wait until the service has settled on `split`, and ask its URL once; what it answers is shown, and rejects nothing."""
    run, deadline = CloudRun(), time.monotonic() + timeout
    while not ((serving := run.read(service)).settled and serving.split.same(split)):
        if time.monotonic() > deadline:
            raise StepFailed(
                f"after {timeout:.0f} s the service serves {serving.split}, and {split} was asked for ({serving.message or 'no message'})",
                where=str(service), remedy="look at the service's conditions; the move was accepted",
            )  # fmt: skip
        time.sleep(0.25)
    answer = Http().ask("GET", serving.uri, timeout=10.0)
    said = f"{serving.uri}: {answer.error or answer.status}"
    findings = (
        Finding(name="split", kind="proof", outcome="passed", detail=str(split)),
        Finding(name="answer", kind="proof", outcome="not proven" if answer.error else "passed", detail=said, required=False),
    )
    for finding in findings:
        say(str(finding))
    return findings


@effect("validate production")
def validate(plan: Plan) -> tuple[Finding, ...]:
    """Requests, counters and smoke commands on the production URL; every outcome is told, required ones decide."""
    wanted, verify = plan.file.validation, plan.file.verify
    findings = [*ask(plan.uri, verify.http if wanted.http is None else wanted.http, patience=PATIENCE)]
    findings += [_counted(plan.uri, counter) for counter in wanted.counters]
    findings += [_smoked(plan, smoke) for smoke in wanted.smoke]
    for finding in findings:
        say(str(finding))
    if red := blocking(findings):
        raise StepFailed(
            "production is not as the release file says: " + "; ".join(f"{f.name}: {f.detail}" for f in red), where=plan.uri,
            remedy=f"validate.on_failure is {wanted.on_failure}", evidence=findings,
        )  # fmt: skip
    return tuple(findings)


def _counted(url: str, counter: Counter) -> Finding:
    """A request that must make a counter grow; each instance counts for itself, so it is asked again until one shows it."""
    begun = time.monotonic()
    deadline = begun + counter.within.total_seconds()
    before = contract.sample(sampled(url, counter.metrics), counter.increments)
    answer = request(Http(), url, counter.when)
    if answer.error is not None or answer.status >= 400:
        detail = answer.error or f"{counter.when.name} answered {answer.status}"
        return Finding(name=f"counter {counter.increments}", kind="counter", outcome="failed", detail=detail, required=counter.required)
    while True:
        after = contract.sample(sampled(url, counter.metrics), counter.increments)
        finding = contract.increment_finding(counter.increments, before, after)
        if finding.outcome == "passed" or time.monotonic() > deadline:
            return finding.model_copy(update={"required": counter.required, "seconds": round(time.monotonic() - begun, 1)})
        time.sleep(0.5)


def _smoked(plan: Plan, smoke: Smoke) -> Finding:
    """The team's command against production; without its secrets it is skipped, and says so."""
    secrets, missing = _secrets(smoke)
    if missing:
        detail = f"no credentials: Prefect Secret block {', '.join(missing)} is missing"
        return Finding(name=smoke.name, kind="smoke", outcome="skipped", detail=detail, required=False)
    command, limit, hidden = fill(smoke.run, plan.facts), smoke.timeout.total_seconds(), tuple(secrets.values())
    ran = run_command(command, Path(plan.source.root), env=secrets, timeout=limit, on_line=_shown(smoke.name), redact=hidden)
    return contract.command_finding(smoke, ran, kind="smoke")


def _shown(name: str) -> Callable[[str], None]:
    return lambda line: say(f"  {name} | {line}")


def _secrets(smoke: Smoke) -> tuple[dict[str, str], list[str]]:
    """The values from Prefect's Secret blocks, for the command's environment alone."""
    found, missing = {}, []
    for variable, block in smoke.secrets.items():
        try:
            found[variable] = str(Secret.load(block).get())  # type: ignore[union-attr]  # a coroutine only where one runs already
        except ValueError:
            missing.append(block)
    return found, missing


@effect("list revisions", retries=2)
def revisions(plan: Plan) -> tuple[Revision, ...] | None:
    """The table of revisions: who is ready, who serves how much, which image; tags come from the registry. None: not known."""
    try:
        found = CloudRun().revisions(plan.service)
    except RelaisError as problem:  # it is read when all is decided, and decides nothing
        say(f"the revisions cannot be listed: {problem.what}", level=logging.WARNING)
        return None
    try:
        images = ArtifactRegistry(plan.service.project, plan.service.region).images(plan.file.repository, plan.service.name)
    except RelaisError as problem:
        say(f"the registry does not say which tags the images have: {problem.what}")
        images = ()
    tags = {image.digest: ", ".join(image.tags) for image in images}
    table = tuple(r.model_copy(update={"tag": r.tag or tags.get(r.digest, "")}) for r in found[:20])
    for revision in table[:6]:
        state = "ready" if revision.ready else "not ready"
        say(f"  {revision.name:<40} {state:<9} {revision.percent:>3} %  {revision.tag or revision.digest[:19]}")
    return table


@effect("metrics after")
def metrics_after(plan: Plan) -> dict[str, str]:
    """The samples of the declared metrics, by group, as production shows them now; empty groups are not known."""
    lines: dict[str, str] = {}
    for check in plan.file.verify.http:
        if check.metrics:
            lines |= contract.group_lines(check.metrics, sampled(plan.uri, check.path))
    return lines
