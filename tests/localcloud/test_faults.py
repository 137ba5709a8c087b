"""Faults on request: each kind by its effect on unmodified clients, and each tells whether it was really met."""

import time
from collections.abc import Iterator

import grpc
import pytest
from clouds import PARENT, Cloud, eventually
from google.api_core import exceptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.cloud import run_v2


@pytest.fixture(autouse=True)
def nothing_left(cloud: Cloud) -> Iterator[None]:
    """Every test begins and ends without faults."""
    yield
    cloud.ask("DELETE", "/faults")


def named(cloud: Cloud, name: str) -> run_v2.ServicesClient:
    """An official client that says who it is."""
    transport = run_v2.ServicesClient.get_transport_class("grpc")
    channel = grpc.insecure_channel(f"127.0.0.1:{cloud.port}")
    return run_v2.ServicesClient(transport=transport(channel=channel, client_info=ClientInfo(user_agent=name)))


def listed(client: run_v2.ServicesClient, **values: object) -> list[run_v2.Service]:
    return list(client.list_services(parent=PARENT, retry=None, **values))


def test_an_error_meets_so_many_calls_and_the_next_goes_well(cloud: Cloud) -> None:
    fault = cloud.fault("error", method="Services/ListServices", code="UNAVAILABLE", message="try again", times=2)
    for _ in range(2):
        with pytest.raises(exceptions.ServiceUnavailable, match="try again"):
            listed(cloud.services)
    listed(cloud.services)
    told = cloud.ask("GET", f"/faults/{fault}")
    assert told["met"]["count"] == 2
    assert told["met"]["latest"][0]["what"] == f"Services/ListServices {PARENT}"
    assert told["spent"]


def test_a_fault_meets_the_client_that_it_names_and_no_other(cloud: Cloud) -> None:
    fault = cloud.fault("error", client="watch", code="PERMISSION_DENIED", message="not you")
    listed(named(cloud, "release"))
    assert cloud.met(fault) == 0
    with pytest.raises(exceptions.PermissionDenied, match="not you"):
        listed(named(cloud, "watch"))
    assert cloud.met(fault) == 1


def test_a_fault_meets_the_resource_that_it_names_and_no_other(cloud: Cloud) -> None:
    cloud.fault("error", method="Services/*", resource="*/services/a-*", code="INTERNAL")
    with pytest.raises(exceptions.NotFound):
        cloud.services.get_service(name=f"{PARENT}/services/b-1", retry=None)
    with pytest.raises(exceptions.InternalServerError):
        cloud.services.get_service(name=f"{PARENT}/services/a-1", retry=None)


def test_a_delay_holds_a_call_up_and_meets_a_callers_deadline(cloud: Cloud) -> None:
    fault = cloud.fault("delay", method="Services/ListServices", seconds=0.4, times=2)
    began = time.monotonic()
    listed(cloud.services)
    assert time.monotonic() - began >= 0.4
    with pytest.raises(exceptions.DeadlineExceeded):
        listed(cloud.services, timeout=0.1)
    assert cloud.met(fault) == 2


@pytest.mark.parametrize(("how", "error"), [("closed", exceptions.ServiceUnavailable), ("silence", exceptions.DeadlineExceeded)])
def test_an_answer_is_dropped_after_the_effect(cloud: Cloud, how: str, error: type[Exception]) -> None:
    name = f"dropped-{how}"
    fault = cloud.fault("drop-answer", method="Services/CreateService", how=how)
    with pytest.raises(error):
        cloud.services.create_service(parent=PARENT, service=cloud.service(name), service_id=name, timeout=1.5)
    assert cloud.met(fault) == 1
    eventually(lambda: cloud.get(name).terminal_condition.state == run_v2.Condition.State.CONDITION_SUCCEEDED)
