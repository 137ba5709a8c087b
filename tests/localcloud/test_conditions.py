"""The conditions of a revision through its life, and the rules for access policies; without a server."""

from typing import Any

import pytest
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2

from localcloud.instances import failures
from localcloud.run import conditions, iam
from localcloud.wire import Code, Refusal


def told(revision: run_v2.Revision) -> dict[str, tuple[str, str, str]]:
    """State, reason and severity of each condition."""
    found = {}
    for each in revision.conditions:
        reason = each.revision_reason.name if each.revision_reason else each.reason.name if each.reason else ""
        severity = each.severity.name if each.severity else ""
        found[each.type_] = (each.state.name.removeprefix("CONDITION_"), reason, severity)
    return found


def pending(least: int = 0) -> run_v2.Revision:
    return run_v2.Revision(conditions=conditions.pending_revision(), scaling={"min_instance_count": least})


def test_a_revision_that_is_being_tried_reconciles_and_tells_that_it_will_be_tried_again() -> None:
    assert told(pending()) == {
        "Ready": ("RECONCILING", "", ""),
        "ContainerReady": ("RECONCILING", "", ""),
        "ContainerHealthy": ("RECONCILING", "", ""),
        "ResourcesAvailable": ("RECONCILING", "", ""),
        "Retry": ("SUCCEEDED", "IMMEDIATE_RETRY", "INFO"),
    }


def test_a_revision_that_serves_has_succeeded_in_everything() -> None:
    revision = pending(2)
    conditions.ready_revision(revision, 4.45, 1.2)
    conditions.activity(revision, active=True, least=2)
    assert set(told(revision).values()) == {("SUCCEEDED", "", "")}
    assert set(told(revision)) == {
        "Ready", "ContainerReady", "ContainerHealthy", "ResourcesAvailable", "Active", "MinInstancesProvisioned",
    }  # fmt: skip
    assert revision.conditions[0].message == "Deploying revision succeeded in 4.45s."
    assert revision.scaling_status.desired_min_instance_count == 2


@pytest.mark.parametrize(
    ("least", "reason"), [pytest.param(0, "RETIRED", id="no minimum"), pytest.param(3, "MIN_INSTANCES_NOT_PROVISIONED", id="a minimum")]
)
def test_a_revision_that_nobody_reaches_is_retired_and_stays_ready(least: int, reason: str) -> None:
    revision = pending(least)
    conditions.ready_revision(revision, 1, 0)
    conditions.activity(revision, active=False, least=0)
    found = told(revision)
    assert found["Ready"] == ("SUCCEEDED", "RETIRED", "")
    assert found["Active"] == ("FAILED", "RETIRED", "INFO")
    assert found["ResourcesAvailable"] == ("RECONCILING", "RETIRED", "")
    assert found["MinInstancesProvisioned"] == ("FAILED", reason, "INFO")
    assert revision.scaling_status.desired_min_instance_count == 0


def test_a_revision_with_a_tag_alone_is_active_without_its_minimum() -> None:
    revision = pending(1)
    conditions.ready_revision(revision, 1, 0)
    conditions.activity(revision, active=True, least=0)
    assert told(revision)["Active"] == ("SUCCEEDED", "", "")
    assert told(revision)["MinInstancesProvisioned"] == ("FAILED", "MIN_INSTANCES_NOT_PROVISIONED", "INFO")


@pytest.mark.parametrize(
    ("fault", "state"),
    [pytest.param(True, "ContainerHealthy", id="the container's"), pytest.param(False, "ContainerReady", id="the image's")],
)
def test_a_revision_that_cannot_serve_tells_whose_fault_it_is(fault: bool, state: str) -> None:
    revision, failure = pending(), failures.image_missing("app-1", "r/app:1")
    conditions.failed_revision(revision, failure.message, failure.reason, containers_fault=fault)
    found = told(revision)
    assert found["Ready"] == found[state] == ("FAILED", "CONTAINER_MISSING", "")
    assert "Retry" not in found


def test_a_condition_keeps_its_time_while_it_says_the_same() -> None:
    revision = pending()
    before = revision.conditions[0].last_transition_time
    conditions.put(revision.conditions, conditions.pending_revision()[0])
    assert revision.conditions[0].last_transition_time == before


def asked(*members: str, role: str = "roles/run.invoker", **policy: Any) -> Any:
    made: Any = policy_pb2.Policy(**policy)
    made.bindings.add(role=role, members=members)
    return iam_policy_pb2.SetIamPolicyRequest(resource="r", policy=made)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        pytest.param(asked("somebody"), 'Policy members must be of the form "<type>:<value>".', id="no type"),
        pytest.param(asked("robot:a@b.c"), "The member a@b.c is of an unknown type. Please set a valid type prefix", id="unknown type"),
        pytest.param(asked("user:nobody"), "Invalid user member: nobody", id="no address"),
        pytest.param(asked("allUsers", role="invoker"), "Role invoker is not supported for this resource.", id="no role"),
        pytest.param(asked("allUsers", version=2), "policy.version", id="version"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(request_: Any, text: str) -> None:
    with pytest.raises(Refusal, match=text.replace("(", r"\(")) as refused:
        iam.changed(b"", request_)
    assert refused.value.code is Code.INVALID_ARGUMENT


def test_a_policy_has_a_new_etag_with_each_change_and_a_stale_one_is_refused() -> None:
    first = iam.changed(b"", asked("allUsers", "user:a@b.org", "serviceAccount:x@p.iam.gserviceaccount.com", "domain:b.org", etag=b"\0 \1"))
    stored = first.SerializeToString()
    assert iam.read(stored).etag == first.etag != iam.read(b"").etag
    with pytest.raises(Refusal, match="There were concurrent policy changes"):
        iam.changed(stored, asked("allUsers", etag=b"\0 \1"))
    only_etag = iam_policy_pb2.SetIamPolicyRequest(resource="r", update_mask={"paths": ["etag"]})
    assert iam.changed(stored, only_etag).bindings == first.bindings


def test_the_permissions_that_are_denied_are_left_out() -> None:
    request = iam_policy_pb2.TestIamPermissionsRequest(permissions=["run.services.get", "run.services.delete"])
    assert list(iam.permissions(request, lambda each: each.endswith("get")).permissions) == ["run.services.get"]
    request.permissions.append("run.*")
    with pytest.raises(Refusal, match="Permission run"):
        iam.permissions(request, lambda _: True)
