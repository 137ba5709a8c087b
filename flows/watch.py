"""The scheduled watch: finish what a dead release left behind."""

import logging
from datetime import UTC, datetime
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, Field

from relais import rollout
from relais.errors import Conflict, RelaisError
from relais.model import Serving
from tasks import documents, traffic, validation
from tasks.effects import say
from tasks.logbook import Logbook


class Place(BaseModel):
    """A project and a region whose services are looked after."""

    project: str = Field(title="Project", examples=["emergence-469005"])
    region: str = Field(title="Region", examples=["europe-west1"])

    def __str__(self) -> str:
        return f"{self.project}, {self.region}"


def looked_at() -> str:
    """The places, as people read them."""
    return "; ".join(str(Place.model_validate(place)) for place in flow_run.parameters.get("places", ()))


@flow(name="watch", flow_run_name=looked_at)
def watch(places: list[Place]) -> State[Any]:
    """Look at every service that carries a rollout: put back the split of one whose driver died, end the fresh ones in time.

    Args:
        places: The projects and regions to look after.
    """
    done, trouble = [], []
    for place in places:
        try:
            found = traffic.rollouts(place.project, place.region)
        except RelaisError as problem:  # the other places are looked at all the same
            trouble.append(f"{place}: {problem}")
            continue
        for serving in found:
            try:
                if word := attend(serving):
                    done.append(f"{serving.service.name}: {word}")
            except Conflict as busy:  # somebody drives it, then
                say(str(busy))
            except RelaisError as problem:
                trouble.append(f"{serving.service.name}: {problem}")
                say(trouble[-1], level=logging.ERROR)
    if trouble:
        raise RelaisError("; ".join(trouble), remedy="the next watch tries again")
    return Completed(message="; ".join(done) or "nothing to do")


def attend(serving: Serving) -> str:
    """One service's turn: the decision is `rollout.attend`'s, what it says is done here."""
    found = rollout.read(serving)
    action = rollout.attend(found, datetime.now(UTC)) if found else "leave"
    if found is None or action == "leave":
        return ""
    owner = f"watch {flow_run.get_id()}"
    # A fresh release ends whoever serves by now; in a rollout, what somebody else wrote is told and never undone.
    wheel = traffic.take_over(serving.service, owner, foreign=action == "finish", seen=found)
    if action == "restore":
        traffic.restore(serving.service, wheel, found.owed, f"the driver of {found.release} is gone")
        validation.serves(serving.service, found.owed)
    traffic.release_lock(serving.service, wheel)
    if action != "finish":
        written(found, action)
    done = {"restore": f"{found.owed} serves again", "release": "the lock is free again", "finish": "the fresh release was looked after"}
    return done[action]


def written(found: rollout.Rollout, action: str) -> None:
    """The documents of a release that somebody else began; without its record, the log alone tells."""
    log = Logbook.of(found.release)
    if log is None:
        return
    serves = f"{found.owed} serves again" if action == "restore" else "no user was moved"
    summary = f"its driver died in the phase {found.phase}; {serves}"
    log.ends("RolledBack" if action == "restore" else "Interrupted", summary, well=False)
    log.did("documents", documents.write, log.record)
