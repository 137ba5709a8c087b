"""Put back what served before: for a verdict, or by hand, with nothing but the service."""

from typing import Any, cast

from prefect import flow
from prefect.runtime import flow_run
from prefect.states import Completed

from relais.model import Finding, ServiceName, Wheel
from tasks import traffic, validation
from tasks.effects import hang_up_like_terminate
from tasks.logbook import Logbook


@flow(name="rollback", flow_run_name="rollback {service.name}")
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
    held = wheel or traffic.take_over(service, f"rollback {flow_run.get_id()}", foreign=True)
    move = traffic.restore(service, held, target, because)
    if (log := Logbook.current()) is not None:
        log.moved(move)
    findings = validation.serves(service, target)
    traffic.release_lock(service, held)
    done: Any = Completed(name="RolledBack", message=f"{target} serves: {because}", data=findings)
    return cast("tuple[Finding, ...]", done)  # Prefect gives callers a returned state's data
