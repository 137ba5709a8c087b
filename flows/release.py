"""The whole runbook: read, add, serve, tell."""

from typing import Any, Literal

from prefect import flow
from prefect.client.schemas.objects import State

from flows.canary import canary
from flows.preflight import preflight
from flows.rollback import rollback
from flows.story import SIDE_BY_SIDE, named, story, tell
from relais import plan as planning
from relais.config import Changes
from relais.errors import StepFailed
from relais.model import Candidate, Plan, Pushed, Verdict
from tasks import documents, image, revision, traffic, validation
from tasks.effects import say
from tasks.logbook import Logbook


@flow(name="release", flow_run_name=named, task_runner=SIDE_BY_SIDE)
def release(
    app: str,
    ref: str = "HEAD",
    until: Literal["promoted", "verified"] = "promoted",
    plan_only: bool = False,
    changes: Changes = Changes(),  # noqa: B008
) -> State[Any]:
    """Take one commit of one service to production, or leave production as it was.

    Args:
        app: The service's repository: a directory that holds a release.yaml, or a Git URL, which is cloned.
        ref: The commit, branch or tag to release.
        until: "promoted" goes all the way; "verified" stops with the candidate at 0 %, and the promote deployment takes it up later.
        plan_only: Stop when the plan is drawn: nothing is built, nothing changes.
        changes: What changes from one release to the next, over what the release file says.
    """
    with story(Logbook.open(app, ref)) as log:
        # Read. Nothing outside has changed yet, so a refusal here costs nothing.
        plan = log.did("plan", preflight, app, ref, changes)
        documents.show_plan(plan)
        if plan_only:
            log.ends("Planned", f"the plan for {plan.title} is drawn, and nothing stands against it")
            return tell(log)

        # Add. An image and a revision without traffic: abandoning them harms nobody.
        pushed = log.did("push", image.push, plan, log.did("build", image.build, plan))

        # Serve. From the deploy on, any exit but promotion, or a declared hold, leaves the stable revisions with their traffic.
        with traffic.guarded(plan, log.moved) as guard:
            candidate = log.did("deploy", deployed, plan, pushed)
            log.did("verify", revision.verify, plan, candidate)
            if until == "verified":
                guard.stands(traffic.hold(plan, f"{candidate.revision} is verified {where(plan)}: {candidate.uri}"))
                how = "the promote deployment takes it further" + ("" if plan.first else ", rollback gives it up")
                log.ends("Held", f"{guard.because}; {how}")
            else:
                serve(log, plan, pushed, candidate, guard)

    # Tell. The same documents, whether it went forward or back.
    return tell(log)


def where(plan: Plan) -> str:
    """At 0 %, but for a service's first revision."""
    return "and serves, for it is the service's first" if plan.first else "at 0 %"


def deployed(plan: Plan, pushed: Pushed) -> Candidate:
    """The candidate, Ready, at 0 %."""
    return revision.ready(plan, revision.deploy(plan, pushed))


def serve(log: Logbook, plan: Plan, pushed: Pushed, candidate: Candidate, guard: traffic.Guard, *, canaried: bool = False) -> None:
    """Traffic by steps, all of it, and the proof; what is worse goes back."""
    if plan.first:
        plan = plan.model_copy(update={"uri": candidate.uri})
        log.saw(plan=plan)
    verdict = log.did("canary", canary, plan) if plan.file.canary and not plan.first and not canaried else go(log, plan)
    log.saw(windows=verdict.windows)
    if verdict.word == "promoted":
        verdict = proven(log, plan, pushed, verdict)
    ended(log, plan, verdict, guard)


def go(log: Logbook, plan: Plan) -> Verdict:
    """Without a canary, or after one: nothing was seen that speaks against 100 %."""
    because = "the contract holds" if plan.first else "the contract holds at 0 %"
    return Verdict(word="promoted", because=because, moves=log.record.moves, windows=log.record.windows)


def proven(log: Logbook, plan: Plan, pushed: Pushed, verdict: Verdict) -> Verdict:
    """All traffic, then the proof of what serves and the contract in production; red is a verdict too."""
    if not plan.first:
        log.moved(log.did("promote", traffic.promote, plan))
    try:
        log.did("proof", validation.what_serves, plan, pushed)
        log.did("validate", validation.validate, plan)
    except StepFailed as red:
        if plan.first:  # there is nothing to go back to, and nobody knew its address before
            raise
        word: Literal["held", "rolled back"] = "held" if plan.file.validation.on_failure == "hold" else "rolled back"
        return verdict.model_copy(update={"word": word, "because": f"at 100 %: {red.what}", "moves": log.record.moves})
    return verdict.model_copy(update={"moves": log.record.moves})


def ended(log: Logbook, plan: Plan, verdict: Verdict, guard: traffic.Guard) -> None:
    """What a verdict does: settle, put back, or hold."""
    log.saw(verdict=verdict)
    if verdict.word == "promoted":
        finish = plan.file.canary.finish if plan.file.canary else "as-before"
        settled = traffic.finish_first(plan) if plan.first else traffic.finish(plan, planning.follows_latest(plan.stable, finish))
        guard.stands("promoted")
        log.ends("Promoted", f"{plan.revision} serves 100 %: {verdict.because}; {settled}")
        say(f"{plan.service.name} answers at {plan.uri}")
        log.saw(metrics=validation.metrics_after(plan))
    elif verdict.word == "held":
        guard.stands(traffic.hold(plan, verdict.because))
        log.ends("Held", f"{verdict.because}; the promote or the rollback deployment ends it", well=False)
    else:
        if not log.is_back:  # the move first: a subflow waits for Prefect's server, and users do not
            log.moved(traffic.restore(plan.service, plan.wheel, plan.stable, verdict.because))
        log.did("rollback", rollback, plan.service, because=verdict.because)
        guard.stands("rolled back")
        log.ends("RolledBack", f"{plan.stable} serves again, and traffic is pinned to it; {verdict.because}", well=False)
    log.saw(revisions=validation.revisions(plan))
