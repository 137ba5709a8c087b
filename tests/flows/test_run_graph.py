"""The arrows in Prefect's run graph: a task's input is what another task gave, and nothing that only looks the same."""

from typing import Any
from uuid import UUID

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State
from team import eventually

from relais.model import Share, Split
from tasks.effects import effect


@effect("who serves")
def who(name: str) -> Split:
    return Split(shares=(Share(revision=name, percent=100),))


@effect("tell {name}")
def tell(name: str, split: Split) -> str:
    return f"{name} {split}".strip()


@flow
def told() -> State[Any] | None:
    split = who("")  # holds the very text that the next task gets
    tell("", Split())
    tell("shop", split)
    return None


def test_an_arrow_joins_a_task_to_what_it_gets_and_not_to_an_equal_text(prefect_server: str) -> None:  # noqa: ARG001
    state = told(return_state=True)
    run = state.state_details.flow_run_id
    assert run is not None
    inputs = eventually(lambda: _inputs(run), 30)
    assert inputs["who serves"] == inputs["tell "] == set()
    assert inputs["tell shop"] == {"who serves"}


def _inputs(run: UUID) -> dict[str, set[str]]:
    """Task run -> the task runs that its arrows come from; empty until the server knows all three, by their final names."""
    with get_client(sync_client=True) as prefect:
        found = prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run])))
    names = {task.id: task.name for task in found}
    sources = {t.name: {names[one.id] for given in t.task_inputs.values() for one in given if hasattr(one, "id")} for t in found}
    return sources if set(sources) == {"who serves", "tell ", "tell shop"} else {}
