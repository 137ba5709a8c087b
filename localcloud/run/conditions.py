"""The conditions of services and revisions, and their states (google/cloud/run/v2/condition.proto)."""

from collections.abc import MutableSequence
from typing import Any

from google.cloud import run_v2

from localcloud import clock
from localcloud.instances.failures import Common, OfRevision, Reason

Condition = run_v2.Condition
State: Any = run_v2.Condition.State
Severity: Any = run_v2.Condition.Severity
_RETRY = "System will retry after 0:00:00 from lastTransitionTime for attempt 0."
_NOT_PROVISIONED = "Minimum instances are provisioned when the revision gets traffic."  # [approximated]


def condition(
    kind: str, state: int, message: str = "", reason: Reason | None = None, severity: int = Severity.SEVERITY_UNSPECIFIED
) -> Condition:
    """Make one condition, of this moment."""
    made = Condition(type_=kind, state=state, message=message, severity=severity, last_transition_time=clock.now())
    if isinstance(reason, Common):
        made.reason = reason
    elif isinstance(reason, OfRevision):
        made.revision_reason = reason
    return made


def put(conditions: MutableSequence[Condition], new: Condition) -> None:
    """Replace the condition of the same type; the time of transition stays if nothing else changed."""
    for index, old in enumerate(conditions):
        if old.type_ == new.type_:
            same = (old.state, old.message, old.severity, old.reason, old.revision_reason)
            if same != (new.state, new.message, new.severity, new.reason, new.revision_reason):
                conditions[index] = new
            return
    conditions.append(new)


def find(conditions: MutableSequence[Condition], kind: str) -> Condition | None:
    """The condition of one type."""
    return next((each for each in conditions if each.type_ == kind), None)


def drop(conditions: MutableSequence[Condition], kind: str) -> None:
    """Take away the condition of one type, if it is there."""
    for index, each in enumerate(conditions):
        if each.type_ == kind:
            del conditions[index]
            return


def pending_revision() -> list[Condition]:
    """A revision that is being tried."""
    text = "Deploying Revision. Waiting on revision to be ready."
    return [
        condition("Ready", State.CONDITION_RECONCILING, text),
        condition("ContainerReady", State.CONDITION_RECONCILING),
        condition("ContainerHealthy", State.CONDITION_RECONCILING),
        condition("ResourcesAvailable", State.CONDITION_RECONCILING),
        condition("Retry", State.CONDITION_SUCCEEDED, _RETRY, Common.IMMEDIATE_RETRY, Severity.INFO),
    ]


def ready_revision(revision: run_v2.Revision, seconds: float, pulled: float) -> None:
    """The revision was tried and serves."""
    drop(revision.conditions, "Retry")
    put(revision.conditions, condition("Ready", State.CONDITION_SUCCEEDED, f"Deploying revision succeeded in {seconds:.2f}s."))
    put(revision.conditions, condition("ContainerReady", State.CONDITION_SUCCEEDED, f"Imported container image in {pulled:.2f}s."))
    healthy = f"Containers became healthy in {max(seconds - pulled, 0):.2f}s."
    put(revision.conditions, condition("ContainerHealthy", State.CONDITION_SUCCEEDED, healthy))


def failed_revision(revision: run_v2.Revision, message: str, reason: Reason, *, containers_fault: bool) -> None:
    """The revision cannot serve."""
    culprit = "ContainerHealthy" if containers_fault else "ContainerReady"
    drop(revision.conditions, "Retry")
    imported = condition("ContainerReady", State.CONDITION_SUCCEEDED)
    other = imported if containers_fault else condition("ContainerHealthy", State.CONDITION_PENDING)
    put(revision.conditions, condition("Ready", State.CONDITION_FAILED, message, reason))
    put(revision.conditions, condition(culprit, State.CONDITION_FAILED, message, reason))
    put(revision.conditions, other)
    put(revision.conditions, condition("ResourcesAvailable", State.CONDITION_PENDING))
    put(revision.conditions, condition("Active", State.CONDITION_PENDING))


def activity(revision: run_v2.Revision, *, active: bool, least: int) -> None:
    """Whether a ready revision is reachable (by traffic or tag) or retired [facts §3, real conditions of a retired revision].

    A revision that asks for a minimum of instances has it only while it gets traffic [condition.proto MIN_INSTANCES_NOT_PROVISIONED].
    """
    ready = find(revision.conditions, "Ready")
    message = ready.message if ready else ""
    minimum = condition("MinInstancesProvisioned", State.CONDITION_SUCCEEDED)
    if active:
        put(revision.conditions, condition("Ready", State.CONDITION_SUCCEEDED, message))
        put(revision.conditions, condition("Active", State.CONDITION_SUCCEEDED))
        put(revision.conditions, condition("ResourcesAvailable", State.CONDITION_SUCCEEDED))
    else:
        retired = OfRevision.RETIRED
        put(revision.conditions, condition("Ready", State.CONDITION_SUCCEEDED, message, retired))
        put(revision.conditions, condition("Active", State.CONDITION_FAILED, "Revision retired.", retired, Severity.INFO))
        put(revision.conditions, condition("ResourcesAvailable", State.CONDITION_RECONCILING, "", retired))
        minimum = condition("MinInstancesProvisioned", State.CONDITION_FAILED, "", retired, Severity.INFO)
    if revision.scaling.min_instance_count and not least:
        reason = OfRevision.MIN_INSTANCES_NOT_PROVISIONED
        minimum = condition("MinInstancesProvisioned", State.CONDITION_FAILED, _NOT_PROVISIONED, reason, Severity.INFO)
    put(revision.conditions, minimum)
    revision.scaling_status.desired_min_instance_count = least if active else 0


def conclude(service: run_v2.Service, *, failed: str, pending: bool, problem: str, waiting: bool) -> None:
    """Tell a service's conditions: Ready is ConfigurationsReady and RoutesReady together, as in Knative.

    `failed` and `pending`: why its latest created revision failed, or that it is being tried; `problem` and `waiting`: why its routes
    are not what is wanted, or that they wait for a revision.
    """
    before = find(service.conditions, "ConfigurationsReady")
    news = failed if before is None or before.state != State.CONDITION_FAILED else ""
    configuration = _part("ConfigurationsReady", failed, waiting=pending)
    # a failed deploy is told on the routes too, even where they are as they were [gcpdiag reads it there]
    routes = _part("RoutesReady", problem or news, waiting=waiting)
    put(service.conditions, routes)
    put(service.conditions, configuration)
    service.reconciling = pending or waiting
    worst = next((each for each in (configuration, routes) if each.state == State.CONDITION_FAILED), None)
    service.terminal_condition = _part("Ready", worst.message if worst else "", waiting=service.reconciling)
    if not (service.reconciling or problem or failed):
        service.observed_generation = service.generation


def _part(kind: str, problem: str, *, waiting: bool) -> Condition:
    if waiting:
        return condition(kind, State.CONDITION_RECONCILING)
    if problem:
        return condition(kind, State.CONDITION_FAILED, problem, Common.REVISION_FAILED)
    return condition(kind, State.CONDITION_SUCCEEDED)
