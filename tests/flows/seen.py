"""What people see in Prefect: a run's name, its log, its tasks and its pages, read through the official client."""

from collections.abc import Callable
from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    FlowRunFilterParentFlowRunId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import State
from team import eventually

Ask = Callable[[], Any]


def run_id(state: State[Any]) -> Any:
    assert state.state_details.flow_run_id is not None
    return state.state_details.flow_run_id


def run_name(state: State[Any]) -> str:
    with get_client(sync_client=True) as prefect:
        return prefect.read_flow_run(run_id(state)).name


def subflows(state: State[Any]) -> list[str]:
    """The names of the subflows, in the order in which they began."""
    parent = FlowRunFilterParentFlowRunId(any_=[run_id(state)])
    with get_client(sync_client=True) as prefect:
        found = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
    return [run.name for run in sorted(found, key=lambda run: run.start_time or run.created)]  # type: ignore[arg-type,return-value]


def pages(state: State[Any]) -> dict[str, str]:
    """Key -> text of the run's artifacts, and of its subflows'."""
    parent = FlowRunFilterParentFlowRunId(any_=[run_id(state)])
    with get_client(sync_client=True) as prefect:
        children = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=parent))
        wanted = ArtifactFilterFlowRunId(any_=[run_id(state), *(child.id for child in children)])
        found = prefect.read_artifacts(artifact_filter=ArtifactFilter(flow_run_id=wanted), limit=200)
    return {str(artifact.key): str(artifact.data) for artifact in sorted(found, key=lambda artifact: artifact.created)}  # type: ignore[arg-type,return-value]


def says(state: State[Any], text: str) -> str:
    """The line of the run's log that holds this text; lines arrive some seconds late."""

    def line() -> str:
        with get_client(sync_client=True) as prefect:
            found = prefect.read_logs(LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run_id(state)])), limit=200)
        return next((log.message for log in found if text in log.message), "")

    return str(eventually(line))


def tasks(state: State[Any], wanted: int, name: str) -> list[str]:
    """The state names of the run's tasks of this name, once there are so many; task runs arrive late."""

    def found() -> list[str] | None:
        with get_client(sync_client=True) as prefect:
            runs = prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id(state)])))
        names = [str(run.state_name) for run in runs if run.name.startswith(name) and run.state and run.state.is_final()]
        return names if len(names) >= wanted else None

    return list(eventually(found))
