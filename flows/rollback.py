"""Put back what served before: for a verdict, or by hand, with nothing but the service."""

from typing import Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from relais.model import Finding, ServiceName, Wheel
from tasks import documents, traffic, validation
from tasks.effects import hang_up_like_terminate
from tasks.logbook import Logbook


@flow(name="rollback", flow_run_name="{service.name}")
def rollback(service: ServiceName, to: str = "recorded", because: str = "by hand", wheel: Wheel | None = None) -> tuple[Finding, ...]:
    """Give the traffic back to the revisions that served before the last release, and prove that they serve.

    Args:
        service: The Cloud Run service: project, region and name.
        to: "recorded" for the split before the last release, or the name of one revision.
        because: Why, for the log and the documents.
        wheel: Only for a release that rolls itself back; leave it empty.
    """
    hang_up_like_terminate()
    target = traffic.target(service, to)
    by_hand = wheel is None
    held = wheel or traffic.take_over(service, f"rollback {flow_run.get_id()}", foreign=True)
    undone = Logbook.of(traffic.release_of(service)) if by_hand else Logbook.current()
    if by_hand or undone is None or not undone.is_back:  # a release that rolls itself back has moved already
        move = traffic.restore(service, held, target, because)
        if undone is not None:
            undone.moved(move)
    findings = validation.serves(service, target)
    traffic.release_lock(service, held)
    if by_hand and undone is not None:
        written(undone, findings, f"{target} serves again, and traffic is pinned to it: {because}")
    done: Any = Completed(name="RolledBack", message=f"{target} serves: {because}", data=findings)
    return cast("tuple[Finding, ...]", done)  # Prefect gives callers a returned state's data


def written(log: Logbook, findings: tuple[Finding, ...], summary: str) -> None:
    """The documents of the release that a person has undone."""
    if log.record.plan is None:
        return
    log.saw(rollback=findings, revisions=validation.revisions(log.record.plan))
    log.ends("RolledBack", summary, well=False)
    log.did("documents", documents.write, log.record)
