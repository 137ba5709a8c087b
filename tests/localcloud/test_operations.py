"""Long-running operations as their clients see them: metadata in flight, waiting, lists, deletion, and what outlives a restart."""

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from typing import Any

import grpc
import httpx
import pytest
from clouds import PARENT, SOON, Cloud, eventually
from google.cloud import run_v2
from google.longrunning import operations_pb2, operations_pb2_grpc


def stub(cloud: Cloud) -> Any:
    return operations_pb2_grpc.OperationsStub(cloud.channel)


def begin(cloud: Cloud, name: str, **env: str) -> Any:
    return cloud.services.create_service(parent=PARENT, service=cloud.service(name, env=env), service_id=name)


def wait(cloud: Cloud, name: str, seconds: float) -> Any:
    request = operations_pb2.WaitOperationRequest(name=name)
    request.timeout.FromNanoseconds(int(seconds * 1e9))
    return stub(cloud).WaitOperation(request)


def service_in(packed: Any) -> run_v2.Service:
    message = run_v2.Service.pb()()
    assert packed.Unpack(message)
    return run_v2.Service.wrap(message)


def refused(call: Callable[[], Any]) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as error:
        call()
    return error.value.code()  # type: ignore[no-any-return, attr-defined]


def test_an_operation_shows_its_service_in_flight_and_as_it_is_in_the_end(cloud: Cloud) -> None:
    begun = begin(cloud, "flight", SLOW="0.7")
    operation = stub(cloud).GetOperation(operations_pb2.GetOperationRequest(name=begun.operation.name))
    flying = service_in(operation.metadata)
    assert (operation.done, flying.reconciling, flying.terminal_condition.state.name) == (False, True, "CONDITION_RECONCILING")
    assert not wait(cloud, begun.operation.name, 0.1).done  # it did not wait for the end
    ended = wait(cloud, begun.operation.name, 20)
    assert ended.done
    assert service_in(ended.response) == service_in(ended.metadata) == cloud.get("flight")


def test_a_failed_operation_has_code_9_and_the_service_with_its_condition(cloud: Cloud) -> None:
    begun = begin(cloud, "fails", FAIL="exit")
    ended = wait(cloud, begun.operation.name, 20)
    assert (ended.done, ended.error.code) == (True, 9)
    service = service_in(ended.metadata)
    assert (service.reconciling, service.terminal_condition.state.name) == (False, "CONDITION_FAILED")
    assert service.terminal_condition.message == ended.error.message


def test_operations_are_listed_by_location_newest_first_in_pages_and_deleted(cloud: Cloud) -> None:
    names = []
    for number in range(3):
        begun = cloud.services.delete_service(name=begin(cloud, f"listed{number}").result(polling=SOON).name)
        names.append(begun.operation.name)
    listed = operations_pb2.ListOperationsRequest(name=PARENT, filter="done=true", page_size=2)
    first = stub(cloud).ListOperations(listed)
    assert first.operations[0].name == names[-1]
    listed.page_token = first.next_page_token
    second = stub(cloud).ListOperations(listed)
    assert not {each.name for each in first.operations} & {each.name for each in second.operations}
    elsewhere = operations_pb2.ListOperationsRequest(name="projects/test-project/locations/us-east1")
    assert not stub(cloud).ListOperations(elsewhere).operations
    nowhere = operations_pb2.ListOperationsRequest(name="nowhere")
    assert refused(lambda: stub(cloud).ListOperations(nowhere)) == grpc.StatusCode.INVALID_ARGUMENT
    stub(cloud).DeleteOperation(operations_pb2.DeleteOperationRequest(name=names[0]))
    assert refused(lambda: stub(cloud).GetOperation(operations_pb2.GetOperationRequest(name=names[0]))) == grpc.StatusCode.NOT_FOUND


def test_operations_cannot_be_cancelled_as_on_google(cloud: Cloud) -> None:
    request = operations_pb2.CancelOperationRequest(name=f"{PARENT}/operations/any")
    assert refused(lambda: stub(cloud).CancelOperation(request)) == grpc.StatusCode.UNIMPLEMENTED


def test_after_a_crash_what_was_begun_is_finished_and_what_nobody_can_do_again_fails(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    begun = begin(cloud, "orphan", SLOW="1")
    stub(cloud).DeleteOperation(operations_pb2.DeleteOperationRequest(name=begun.operation.name))
    cloud.stop(signal.SIGKILL)
    lost = f"{PARENT}/operations/of-another-kind"
    with closing(sqlite3.connect(cloud.state / "cloud.sqlite", isolation_level=None)) as state:
        body = operations_pb2.Operation(name=lost).SerializeToString()
        state.execute("INSERT INTO operations (name, body, done, resume) VALUES (?, ?, 0, '')", (lost, body))
    cloud.start()
    ended = wait(cloud, lost, 5)
    assert (ended.done, ended.error.code) == (True, grpc.StatusCode.ABORTED.value[0])
    service = eventually(lambda: (found := cloud.get("orphan")) and not found.reconciling and found)
    assert httpx.get(service.uri).status_code == 200
