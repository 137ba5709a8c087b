"""Faults on request: each kind by its effect on unmodified clients, and each tells whether it was really met."""

import asyncio
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import grpc
import httpx
import pytest
from clouds import PARENT, SOON, Cloud, PushFailed, eventually, push
from google.api_core import exceptions
from google.api_core.gapic_v1.client_info import ClientInfo
from google.cloud import artifactregistry_v1 as ar
from google.cloud import run_v2

from localcloud.admin.faultkinds import KillContainer
from localcloud.admin.faults import Active, Faults
from localcloud.admin.mishaps import Mishaps
from localcloud.admin.stale import Before
from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.registryfront import RegistryFront
from localcloud.instances.blueprint import Blueprint
from localcloud.instances.engine import Engine
from localcloud.logs.logstore import LogStore
from localcloud.naming import ServiceName
from localcloud.state import State


@pytest.fixture(autouse=True)
def nothing_left(cloud: Cloud) -> Iterator[None]:
    """Every test begins and ends without faults."""
    yield
    cloud.ask("DELETE", "/faults")


@pytest.fixture(scope="module")
def app(cloud: Cloud) -> run_v2.Service:
    """A service that most of these tests befall; it stays as it is, but for annotations."""
    return cloud.create("app")


def noted(cloud: Cloud, value: str) -> run_v2.Service:
    """The service changed without a new revision, and so without a container."""
    return cloud.update(cloud.named("app", annotations={"note": value}), "annotations")


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
@pytest.mark.usefixtures("app")
def test_an_answer_is_dropped_after_the_effect(cloud: Cloud, how: str, error: type[Exception]) -> None:
    fault = cloud.fault("drop-answer", method="Services/UpdateService", how=how)
    changed = run_v2.UpdateServiceRequest(service=cloud.named("app", annotations={"note": how}), update_mask={"paths": ["annotations"]})
    with pytest.raises(error):
        cloud.services.update_service(changed, retry=None, timeout=1)
    assert cloud.met(fault) == 1
    eventually(lambda: cloud.get("app").annotations.get("note") == how)


def test_an_operation_fails_after_it_was_accepted_and_nothing_was_done(cloud: Cloud, app: run_v2.Service) -> None:
    fault = cloud.fault("fail-operation", method="Services/UpdateService", code="INTERNAL", message="it broke")
    with pytest.raises(exceptions.InternalServerError, match="it broke"):
        cloud.update(cloud.named("app", env={"A": "2"}))
    assert cloud.met(fault) == 1
    assert cloud.get("app").traffic_statuses == app.traffic_statuses


def test_an_operation_fails_though_all_was_done(cloud: Cloud, app: run_v2.Service) -> None:
    fault = cloud.fault("fail-operation", resource=app.name, effect=True)
    with pytest.raises(exceptions.InternalServerError):
        noted(cloud, "done")
    assert cloud.met(fault) == 1
    assert cloud.get("app").annotations["note"] == "done"


@pytest.mark.usefixtures("app")
def test_an_operation_that_was_never_accepted_is_not_counted_as_failed(cloud: Cloud) -> None:
    fault = cloud.fault("fail-operation", method="Services/UpdateService")
    disk = cloud.fault("disk-full", times=0)
    with pytest.raises(exceptions.ResourceExhausted):
        cloud.update(cloud.named("app", env={"A": "2"}))
    cloud.ask("DELETE", f"/faults/{disk}")
    assert cloud.met(fault) == 0


def test_a_stale_read_shows_the_service_before_its_latest_write(cloud: Cloud) -> None:
    first = cloud.create("stale")
    new = cloud.update(cloud.named("stale", env={"A": "2"}))
    fault = cloud.fault("stale-read", resource=first.name, times=2)
    old = cloud.get("stale")
    assert (old.etag, old.latest_created_revision) == (first.etag, first.latest_created_revision)
    with pytest.raises(exceptions.Aborted, match="Conflict for resource 'stale'"):
        cloud.update(cloud.named("stale", etag=old.etag, env={"A": "3"}))
    cloud.fault("stale-read", method="Revisions/*")
    with pytest.raises(exceptions.NotFound, match="of kind 'REVISION'"):
        cloud.revisions.get_revision(name=new.latest_created_revision, retry=None)
    assert cloud.get("stale").etag == first.etag
    assert cloud.get("stale").etag == new.etag
    assert cloud.met(fault) == 2


def test_a_stale_read_shows_a_service_that_was_just_deleted(cloud: Cloud) -> None:
    before = cloud.create("deleted")
    cloud.services.delete_service(name=before.name).result(polling=SOON)
    fault = cloud.fault("stale-read", resource=before.name)
    assert cloud.get("deleted").uid == before.uid
    assert cloud.met(fault) == 1
    with pytest.raises(exceptions.NotFound):
        cloud.get("deleted")


@pytest.mark.usefixtures("app")
def test_a_clock_that_is_off_is_seen_by_clients_until_it_is_put_right(cloud: Cloud) -> None:
    fault = cloud.fault("clock", seconds=86400 * 3)
    assert noted(cloud, "off").update_time.timestamp() > time.time() + 86400 * 2
    assert cloud.met(fault) > 0
    assert cloud.request("POST", "/faults", {"kind": "clock", "seconds": 1}).status_code == 409
    assert cloud.request("POST", "/faults", {"kind": "clock", "seconds": 0}).status_code == 400
    cloud.ask("DELETE", f"/faults/{fault}")
    assert abs(noted(cloud, "right").update_time.timestamp() - time.time()) < 60


@pytest.mark.usefixtures("app")
def test_a_full_disk_refuses_every_write_and_loses_nothing(cloud: Cloud) -> None:
    before = cloud.get("app")
    fault = cloud.fault("disk-full", times=0)
    with pytest.raises(exceptions.ResourceExhausted, match="is full: nothing was changed"):
        noted(cloud, "full")
    assert cloud.get("app") == before
    assert cloud.met(fault) > 0
    cloud.ask("DELETE", f"/faults/{fault}")
    assert noted(cloud, "room").annotations["note"] == "room"


def test_a_disk_that_is_full_already_is_not_filled_again(cloud: Cloud) -> None:
    first = cloud.fault("disk-full", times=0)
    assert cloud.request("POST", "/faults", {"kind": "disk-full"}).status_code == 409
    logs = cloud.fault("disk-full", store="logs", times=0)
    for each in (first, logs):
        cloud.ask("DELETE", f"/faults/{each}")
    cloud.create("room")


def test_a_full_disk_holds_log_entries_back_and_loses_none(cloud: Cloud, app: run_v2.Service) -> None:
    fault = cloud.fault("disk-full", store="logs", times=0)
    assert httpx.get(f"{app.uri}/talk", trust_env=False).status_code == 200
    eventually(lambda: cloud.met(fault))
    with pytest.raises(exceptions.ServiceUnavailable):
        list(cloud.logging.list_log_entries(request={"resource_names": ["projects/test-project"]}, retry=None))
    cloud.ask("DELETE", "/faults")
    eventually(lambda: cloud.entries("requests", "app", 'AND httpRequest.requestUrl:"/talk"'))


def test_an_instance_is_killed_now_or_at_a_request_and_the_service_answers_again(cloud: Cloud, app: run_v2.Service) -> None:
    first = cloud.containers(running=True)
    now = cloud.fault("kill-container", service="app")
    assert cloud.met(now) == 1
    later = cloud.fault("kill-container", service="app", request=2)
    answers = [httpx.get(app.uri, trust_env=False, timeout=20).status_code for _ in range(3)]
    assert answers[0] in (200, 503)
    eventually(lambda: cloud.met(later) == 1)
    eventually(lambda: httpx.get(app.uri, trust_env=False, timeout=20).status_code == 200)
    assert {each.id for each in cloud.containers(running=True)} != {each.id for each in first}
    assert cloud.request("POST", "/faults", {"kind": "kill-container", "service": "nobody"}).status_code == 409


def test_a_kill_that_could_not_be_done_is_not_told_as_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:1")
    state, store, engine = State(tmp_path / "cloud.sqlite"), LogStore(tmp_path / "logs.sqlite", max_bytes=2**20), Engine("nowhere")
    service = ServiceName("p", "europe-west1", "app")
    asked = Blueprint(service, "app-1", "", (), (), timeout_s=1, concurrency=1, least=0, most=1, account="", labels=())

    async def asks() -> Active:
        front = RegistryFront("127.0.0.1", state, Catalog("127.0.0.1:1", state))
        faults = Faults(Before(state))
        mishaps = Mishaps(faults, state, store, engine, front)
        active = await faults.ask(KillContainer(service="app", request=1))
        mishaps.arrived(asked, "c" * 64)
        mishaps.arrived(asked, "c" * 64)
        await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})
        await front.close()
        return active

    with closing(state), closing(store), closing(engine):
        assert asyncio.run(asks()).met == 0


def test_a_registry_that_is_down_answers_503_and_then_serves_again(cloud: Cloud) -> None:
    artifacts = ar.ArtifactRegistryClient(transport=ar.ArtifactRegistryClient.get_transport_class("grpc")(channel=cloud.channel))
    wanted = ar.Repository(format_=ar.Repository.Format.DOCKER)
    made = artifacts.create_repository(parent=PARENT, repository_id="down", repository=wanted).result(polling=SOON)
    host = made.registry_uri.split("/")[0].replace("localhost", "127.0.0.1")
    fault = cloud.fault("registry-down")
    assert [httpx.get(f"http://{host}/v2/", trust_env=False).status_code for _ in range(2)] == [503, 200]
    assert cloud.met(fault) == 1
    assert "times" in cloud.request("POST", "/faults", {"kind": "registry-down", "how": "refused"}).json()["where"]
    fault = cloud.fault("registry-down", how="refused", times=0)
    assert cloud.request("POST", "/faults", {"kind": "registry-down"}).status_code == 409
    with pytest.raises(PushFailed, match="connection refused"):
        push(f"{made.registry_uri}/web:t1", cloud.image)
    assert cloud.met(fault) == 1
    with socket.create_server(("127.0.0.1", int(host.split(":")[1]))):  # another program takes the port
        assert cloud.request("DELETE", f"/faults/{fault}").status_code == 409
    cloud.ask("DELETE", f"/faults/{fault}")
    assert httpx.get(f"http://{host}/v2/", trust_env=False).status_code == 200


def test_log_entries_are_lost_as_asked_and_the_next_is_there(cloud: Cloud, app: run_v2.Service) -> None:
    fault = cloud.fault("log", fate="lost", filter='httpRequest.requestUrl:"/logged/lost"', times=1)
    for path in ("lost", "lost-not", "kept"):
        httpx.get(f"{app.uri}/logged/{path}", trust_env=False)
    found = eventually(lambda: len(kept := cloud.entries("requests", "app", 'AND httpRequest.requestUrl:"/logged/"')) == 2 and kept)
    assert sorted(each.http_request.request_url.rsplit("/", 1)[-1] for each in found) == ["kept", "lost-not"]
    assert cloud.met(fault) == 1


def test_a_log_entry_comes_late_and_another_comes_twice(cloud: Cloud, app: run_v2.Service) -> None:
    late = cloud.fault("log", fate="late", seconds=0.4, filter='httpRequest.requestUrl:"/late"')
    twice = cloud.fault("log", fate="twice", filter='httpRequest.requestUrl:"/twice"')
    began = time.monotonic()
    for path in ("late", "twice"):
        httpx.get(f"{app.uri}/{path}", trust_env=False)
    eventually(lambda: cloud.entries("requests", "app", 'AND httpRequest.requestUrl:"/late"'))
    assert time.monotonic() - began > 0.4
    found = cloud.entries("requests", "app", 'AND httpRequest.requestUrl:"/twice"')
    assert len(found) == 2
    assert found[0].http_request == found[1].http_request
    assert (cloud.met(late), cloud.met(twice)) == (1, 1)
