"""The candidate: deployed at 0 % with a tag, waited for with its log in sight, verified on its own URL."""

import time
from datetime import UTC, datetime
from pathlib import Path

from relais import rollout
from relais.clients.contract import ask, read_log
from relais.clients.logs import Logs
from relais.clients.run import CloudRun
from relais.clients.template import changed, template_of
from relais.config import load_env_file
from relais.errors import Conflict, Denied, Refused, StepFailed, Unavailable
from relais.model import Candidate, Finding, Plan, Pushed, blocking
from tasks.effects import effect, say

WARM_UP = 20.0  # seconds in which a request that fails is asked again: the revision may be starting


@effect("deploy at 0 %")
def deploy(plan: Plan, pushed: Pushed) -> Candidate:
    """Add the candidate, pin the stable revisions and take the lock, all in one write on one read.

    Once more after a conflict, on a new read; after an answer that was lost, the service itself says whether the write was accepted.
    """
    try:
        _ask_for(plan, pushed)
    except Conflict:
        _ask_for(plan, pushed)
    except Unavailable:
        if not _accepted(plan):
            raise
    say(f"revision {plan.revision} asked for, at {100 if plan.first else 0} %, tag {plan.traffic_tag}")
    return Candidate(revision=plan.revision, digest=pushed.digest, tag=plan.traffic_tag)


def _accepted(plan: Plan) -> bool:
    seen = rollout.read(CloudRun().read(plan.service))
    return seen is not None and seen.wheel == plan.wheel and seen.phase == "deploying"


def _ask_for(plan: Plan, pushed: Pushed) -> None:
    run, file, now = CloudRun(), plan.file, datetime.now(UTC)
    serving = run.read(plan.service, access=True)
    env = load_env_file(Path(plan.source.root) / file.deploy.env_file) if file.deploy.env_file else {}
    base = template_of(run.revision(plan.service, plan.stable.main)) if serving.exists and not plan.first else None
    template = changed(base, file.deploy, env, pushed.pinned)
    template.revision = plan.revision
    template.annotations = {
        **template.annotations,
        rollout.STAMP_RELEASE: plan.id,
        rollout.STAMP_STABLE: rollout.dump_stable(plan.stable),
        rollout.STAMP_COMMIT: plan.source.commit.sha,
        rollout.STAMP_TAG: plan.tag,
    }
    public = None if file.deploy.public == "keep" or file.deploy.public is serving.public else file.deploy.public
    scaling = (file.deploy.scaling.min_instances, file.deploy.scaling.max_instances) if file.deploy.scaling else None
    policy = {
        "canary": file.canary.model_dump(mode="json", by_alias=True) if file.canary else None,
        "validate": file.validation.model_dump(mode="json", by_alias=True),
    }
    if not serving.exists:
        if not plan.first:
            raise Refused(f"{plan.service} is gone since the plan", remedy="find out who deleted it, then release again")
        first = rollout.first(plan, pushed.digest, now, policy)
        run.create(
            plan.service, template, {rollout.ANNOTATION: first.model_dump_json()}, plan.traffic_tag,
            public=public, ingress=file.deploy.ingress, scaling=scaling,
        )  # fmt: skip
    else:
        write = rollout.begin(serving, plan, pushed.digest, now, policy, lease=file.deploy.ready_within + rollout.LEASE)
        run.deploy(write, template, public=public, ingress=file.deploy.ingress, scaling=scaling)


@effect("wait until ready")
def ready(plan: Plan, candidate: Candidate) -> Candidate:
    """Ready, or the sentence of why not together with the revision's own log."""
    run, logs, limit = CloudRun(), Logs(plan.service.project), plan.file.deploy.ready_within.total_seconds()
    begun, shown, message = time.monotonic(), 0, ""
    since = plan.started
    while True:
        waited = time.monotonic() - begun
        try:
            is_ready, message = run.state(plan.service, candidate.revision)
        except Unavailable as outage:
            is_ready, message = None, outage.what
        lines = _lines(logs, plan, candidate, since)
        for line in lines[shown:]:
            say(f"  {candidate.revision} | {line}")
        shown = len(lines)
        if is_ready is False:
            raise StepFailed(
                f"revision {candidate.revision} did not start: {_first_sentence(message)}",
                where=str(plan.service),
                remedy=_why_not(message, lines),
            )
        if is_ready:
            serving = run.read(plan.service)
            uri = serving.tags.get(candidate.tag, "")
            if serving.settled and (uri or plan.first):
                say(f"revision {candidate.revision} is ready after {waited:.1f} s: {uri}")
                seen = {
                    "uri": uri or serving.uri,
                    "seconds": round(waited, 1),
                    "log": lines[-40:],
                    "log_uri": run.log_uri(plan.service, plan.revision),
                }
                return candidate.model_copy(update=seen)
        if waited > limit:
            raise StepFailed(
                f"revision {candidate.revision} is not ready after {limit:.0f} s ({message or 'no message'})",
                where=str(plan.service),
                remedy="raise deploy.ready_within if it needs longer; its log is above",
            )
        time.sleep(0.3 if waited < 5 else 1.5)


def _lines(logs: Logs, plan: Plan, candidate: Candidate, since: datetime) -> tuple[str, ...]:
    try:
        return tuple(line.text for line in logs.revision_lines(plan.service, candidate.revision, since))
    except (Unavailable, Denied) as problem:
        say(f"the log cannot be read right now: {problem.what}")
        return ()


def _first_sentence(message: str) -> str:
    said = message.partition("\n")[0]
    return said.partition(" is not ready and cannot serve traffic. ")[2] or said or "Cloud Run gives no reason"


def _why_not(message: str, lines: tuple[str, ...]) -> str:
    """The remedy that fits; the revision's last lines say more than any advice."""
    last = "; last lines of its log: " + " | ".join(lines[-5:]) if lines else "; its log is empty"
    if "PORT" in message:
        return "the process must listen on 0.0.0.0:$PORT soon after it starts; look for an exception or a slow import" + last
    if "support image" in message or "amd64" in message:
        return "build the image for linux/amd64" + last
    if "not found" in message:
        return "look whether the image is still in the registry" + last
    return "read its log, mend the cause and release again" + last


@effect("verify at 0 %")
def verify(plan: Plan, candidate: Candidate) -> tuple[Finding, ...]:
    """The contract on the tagged URL: requests, metrics by HELP and TYPE, log lines; any red finding stops the release."""
    wanted = plan.file.verify
    findings = (
        *ask(candidate.uri, wanted.http, patience=WARM_UP),
        *read_log(Logs(plan.service.project), plan.service, candidate.revision, wanted.logs, plan.started),
    )
    for finding in findings:
        say(str(finding))
    if red := blocking(findings):
        raise StepFailed(
            "the contract is not met at 0 %: " + "; ".join(f"{f.name}: {f.detail}" for f in red),
            where=candidate.uri,
            remedy="no user was served by it; mend the cause and release again",
            evidence=findings,
        )
    return findings
