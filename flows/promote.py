"""Take a verified or held candidate further, by a person's word."""

from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run

from flows.release import serve
from flows.story import SIDE_BY_SIDE, story, tell
from relais.errors import Refused
from relais.model import ServiceName
from tasks import traffic
from tasks.effects import say
from tasks.logbook import Logbook


@flow(name="promote", flow_run_name="{service.name}", task_runner=SIDE_BY_SIDE)
def promote(service: ServiceName, because: str = "by hand") -> State[Any]:
    """Take the candidate that a release left at 0 % through its canary to 100 %, or one that it held at a step there at once.

    Args:
        service: The Cloud Run service: project, region and name.
        because: Why, for the log and the documents.
    """
    held = traffic.held(service)
    log = Logbook.find(held.release)
    plan, pushed, candidate = log.record.plan, log.record.push, log.record.deploy
    if plan is None or pushed is None or candidate is None:
        what = f"the record of {held.release} does not say what was deployed"
        raise Refused(what, where=str(service), remedy="end it with the rollback deployment, then release the commit again")
    wheel = traffic.take_over(service, f"promote {flow_run.get_id()}", seen=held)  # until it is ours, the record is somebody else's
    with story(log):
        plan = plan.model_copy(update={"wheel": wheel})
        log.saw(plan=plan)
        say(f"taking {candidate.revision} further: {because}")
        with traffic.guarded(plan, log.moved) as guard:
            serve(log, plan, pushed, candidate, guard, canaried=bool(log.record.moves))
    return tell(log)
