"""Put back what served before: for a verdict, or by hand, with nothing but the service."""

from typing import Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from relais.model import Finding, ServiceName, Split, Wheel
from tasks import documents, traffic, validation
from tasks.effects import hang_up_like_terminate
from tasks.logbook import Logbook


@flow(name="rollback", flow_run_name="{service.name}")
def rollback(service: ServiceName, to: str = "recorded", because: str = "by hand") -> tuple[Finding, ...]:
    """Give the traffic back to the revisions that served before the last release, and prove that they serve.

    Args:
        service: The Cloud Run service: project, region and name.
        to: "recorded" for the split before the last release, or the name of one revision.
        because: Why, for the log and the documents.
    """
    hang_up_like_terminate()
    release = Logbook.current()
    if release is not None and release.record.plan is not None:  # a release that undoes itself has moved already
        plan = release.record.plan
        return rolled_back(proven(service, plan.wheel, plan.stable), f"{plan.stable} serves: {because}")
    target = traffic.target(service, to)
    undone = Logbook.of(traffic.release_of(service))
    wheel = traffic.take_over(service, f"rollback {flow_run.get_id()}", foreign=True)
    move = traffic.restore(service, wheel, target, because)
    findings = proven(service, wheel, target)
    if undone is not None:
        undone.moved(move)
        written(undone, findings, f"{target} serves again, and traffic is pinned to it: {because}")
    return rolled_back(findings, f"{target} serves: {because}")


def proven(service: ServiceName, wheel: Wheel, target: Split) -> tuple[Finding, ...]:
    """The split serves; then the lock is free."""
    findings = validation.serves(service, target)
    traffic.release_lock(service, wheel)
    return findings


def rolled_back(findings: tuple[Finding, ...], message: str) -> tuple[Finding, ...]:
    """The state's name tells people; callers get the findings (Prefect gives them a returned state's data)."""
    done: Any = Completed(name="RolledBack", message=message, data=findings)
    return cast("tuple[Finding, ...]", done)


def written(log: Logbook, findings: tuple[Finding, ...], summary: str) -> None:
    """The documents of the release that a person has undone."""
    if log.record.plan is None:
        return
    log.saw(rollback=findings, revisions=validation.revisions(log.record.plan))
    log.ends("RolledBack", summary, well=False)
    log.did("documents", documents.write, log.record)
