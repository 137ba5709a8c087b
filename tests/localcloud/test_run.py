"""Services and revisions, through the official clients."""

import base64
import datetime
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import httpx
import pytest
from clouds import PARENT, SOON, Cloud, eventually, latest, pinned
from google.api_core import exceptions
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc


def short(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def test_a_new_service_serves_its_image(cloud: Cloud) -> None:
    made = cloud.create("first", labels={"team": "a", "both": "service"}, template={"labels": {"both": "revision"}})
    assert httpx.get(made.uri).text == short(made.latest_ready_revision)
    for log in ("requests", "stdout", "varlog/system"):  # every entry has the labels of the service, and the revision's own before them
        entry = eventually(lambda log=log: cloud.entries(log, "first"))[0]
        assert {**entry.labels, "instanceId": ""} == {"team": "a", "both": "revision", "instanceId": ""}
    assert made.terminal_condition.type_ == "Ready"
    assert {each.type_: each.state.name for each in [made.terminal_condition, *made.conditions]} == dict.fromkeys(
        ("Ready", "RoutesReady", "ConfigurationsReady"), "CONDITION_SUCCEEDED"
    )
    assert made.generation == made.observed_generation == 1
    assert made.latest_created_revision == made.latest_ready_revision
    assert not made.reconciling
    assert [(each.type_.name[-6:], each.revision, each.percent, each.uri) for each in made.traffic_statuses] == [("LATEST", "", 100, "")]


def test_what_a_client_leaves_open_gets_the_defaults_of_the_real_service(cloud: Cloud) -> None:
    template = cloud.create("defaults").template
    container = template.containers[0]
    assert dict(container.resources.limits) == {"cpu": "1000m", "memory": "512Mi"}
    assert container.resources.cpu_idle
    assert (container.ports[0].name, container.ports[0].container_port) == ("http1", 8080)
    probe = container.startup_probe
    assert (probe.timeout_seconds, probe.period_seconds, probe.failure_threshold, probe.tcp_socket.port) == (240, 240, 1, 8080)
    assert template.timeout == datetime.timedelta(seconds=300)
    assert (template.max_instance_request_concurrency, template.scaling.max_instance_count) == (80, 100)
    assert template.service_account.endswith("-compute@developer.gserviceaccount.com")


def test_revision_names_count_up_and_end_in_three_characters(cloud: Cloud) -> None:
    cloud.create("counting")
    service = cloud.get("counting")
    service.template.containers[0].env = [run_v2.EnvVar(name="A", value="1")]
    cloud.update(service, "template")
    names = [short(each.name) for each in cloud.revisions.list_revisions(parent=f"{PARENT}/services/counting")]
    assert [name[:-3] for name in names] == ["counting-00002-", "counting-00001-"]


def test_an_update_that_leaves_the_template_alone_makes_no_revision(cloud: Cloud) -> None:
    made = cloud.create("same")
    service = cloud.get("same")
    service.annotations = {"relais.dev/rollout": "{}"}
    service.labels = {"team": "a"}
    changed = cloud.update(service)
    assert changed.latest_created_revision == made.latest_created_revision
    assert changed.generation == changed.observed_generation == 2


def test_a_mask_replaces_the_named_fields_as_a_whole_and_nothing_else(cloud: Cloud) -> None:
    cloud.create("masked", annotations={"a": "1", "b": "2"}, labels={"kept": "yes"}, description="kept")
    changed = cloud.update(run_v2.Service(name=f"{PARENT}/services/masked", annotations={"c": "3"}), "annotations")
    assert (dict(changed.annotations), dict(changed.labels), changed.description) == ({"c": "3"}, {"kept": "yes"}, "kept")


def test_a_mask_may_go_into_the_template(cloud: Cloud) -> None:
    cloud.create("deep", env={"A": "1"})
    wanted = run_v2.Service(name=f"{PARENT}/services/deep", template={"max_instance_request_concurrency": 7})
    changed = cloud.update(wanted, "template.max_instance_request_concurrency")
    assert changed.template.max_instance_request_concurrency == 7
    assert changed.template.containers[0].env[0].value == "1"


def test_a_stale_etag_is_a_conflict_and_changes_nothing(cloud: Cloud) -> None:
    cloud.create("locked")
    first, second = cloud.get("locked"), cloud.get("locked")
    first.annotations = {"by": "first"}
    cloud.update(first, "annotations")
    second.annotations = {"by": "second"}
    with pytest.raises(
        exceptions.Aborted, match=r"Conflict for resource 'locked': version '\d{16}' was specified but current version is '\d{16}'\."
    ):
        cloud.update(second, "annotations")
    assert dict(cloud.get("locked").annotations) == {"by": "first"}
    second.etag = ""
    assert dict(cloud.update(second, "annotations").annotations) == {"by": "second"}


def test_of_updates_at_once_with_one_etag_exactly_one_wins(cloud: Cloud) -> None:
    made = cloud.create("contended")

    def update(number: int) -> str:
        try:
            cloud.update(run_v2.Service(name=made.name, etag=made.etag, description=f"by {number}"), "description")
        except exceptions.Aborted:
            return "conflict"
        return f"by {number}"

    with ThreadPoolExecutor(8) as pool:
        (winner,) = set(pool.map(update, range(8))) - {"conflict"}
    assert (cloud.get("contended").description, cloud.get("contended").generation) == (winner, 2)


def test_a_revision_name_is_used_once(cloud: Cloud) -> None:
    cloud.create("named", revision="named-one", env={"A": "1"})
    service = cloud.get("named")
    assert service.template.revision == "named-one"
    service.template.containers[0].env[0].value = "2"
    with pytest.raises(exceptions.AlreadyExists, match="Revision named 'named-one' with different configuration already exists"):
        cloud.update(service, "template")
    service.template.containers[0].env[0].value = "1"
    assert short(cloud.update(service, "template").latest_created_revision) == "named-one"


def test_validate_only_and_allow_missing_do_as_they_say(cloud: Cloud) -> None:
    service = cloud.service("maybe")
    service.name = f"{PARENT}/services/maybe"
    request = run_v2.UpdateServiceRequest(service=service, allow_missing=True, validate_only=True)
    assert cloud.services.update_service(request).result(polling=SOON).name.endswith("services/maybe")
    with pytest.raises(exceptions.NotFound, match="Resource 'maybe' of kind 'SERVICE' in region 'europe-west1' in project 'test-project'"):
        cloud.get("maybe")
    with pytest.raises(exceptions.NotFound):
        cloud.update(service)
    request.validate_only = False
    assert cloud.services.update_service(request).result(polling=SOON).uri


def test_a_mask_with_a_field_that_does_not_exist_is_refused(cloud: Cloud) -> None:
    cloud.create("mask")
    for path in ("scaling.minInstanceCount", "nothing", "template.containers.image"):
        with pytest.raises(exceptions.InvalidArgument, match=f"update_mask: '{path}'"):
            cloud.update(run_v2.Service(name=f"{PARENT}/services/mask"), path)


@pytest.mark.parametrize(
    "template",
    [
        pytest.param({"containers": [{"image": "a"}], "volumes": [{"name": "v", "gcs": {"bucket": "b"}}]}, id="buckets as volumes"),
        pytest.param({"containers": [{"image": "a"}], "node_selector": {"accelerator": "nvidia-l4"}}, id="GPUs"),
        pytest.param({"containers": [{"image": "a", "ports": [{"name": "h2c", "container_port": 80}]}]}, id="HTTP/2"),
    ],
)
def test_what_this_cloud_cannot_run_is_refused_rather_than_ignored(cloud: Cloud, template: Any) -> None:
    with pytest.raises(exceptions.MethodNotImplemented, match="the local cloud"):
        cloud.services.create_service(parent=PARENT, service=run_v2.Service(template=template), service_id="more")


def wrong(cloud: Cloud, **values: Any) -> None:
    cloud.services.create_service(parent=PARENT, service=cloud.service("wrong", **values), service_id="wrong")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        pytest.param({"env": {"PORT": "1", "K_SERVICE": "x"}}, "reserved env names were provided: PORT, K_SERVICE", id="reserved names"),
        pytest.param({"revision": "other-1"}, "must be prefixed by the name of the enclosing Service", id="a foreign revision name"),
        pytest.param({"revision": "wrong-" + "a" * 60}, "shorter than 64", id="a long revision name"),
        pytest.param({"annotations": {"run.googleapis.com/x": "1"}}, "reserved namespace", id="a reserved annotation"),
        pytest.param({"template": {"labels": {"serving.knative.dev/x": "1"}}}, "reserved namespace", id="a reserved label"),
        pytest.param({"traffic": [latest(90)]}, "Traffic targets sum to 90, want 100", id="a wrong sum"),
        pytest.param({"traffic": [latest(100, "a"), latest(0, "a")]}, "Multiple definitions for tag 'a'", id="a tag twice"),
        pytest.param({"template": {"timeout": datetime.timedelta(hours=2)}}, "maximum allowed time is one hour", id="a long timeout"),
    ],
)
def test_what_the_real_service_refuses_is_refused_before_anything_changes(cloud: Cloud, values: dict[str, Any], message: str) -> None:
    with pytest.raises(exceptions.InvalidArgument, match=message):
        wrong(cloud, **values)
    with pytest.raises(exceptions.NotFound):
        cloud.get("wrong")


def test_a_service_is_named_by_its_id_alone(cloud: Cloud) -> None:
    service = cloud.service("named-twice")
    service.name = f"{PARENT}/services/named-twice"
    with pytest.raises(exceptions.InvalidArgument, match=r"service\.name must be empty on CreateServiceRequest") as refused:
        cloud.services.create_service(parent=PARENT, service=service, service_id="named-twice")
    assert refused.value.details[0].field_violations[0].field == "Violation in CreateServiceRequest.service"
    with pytest.raises(exceptions.InvalidArgument, match=r"service\.template: required field not present"):
        cloud.services.create_service(parent=PARENT, service=run_v2.Service(), service_id="named-twice")


def test_traffic_for_a_revision_that_does_not_exist_is_accepted_and_fails_without_harm(cloud: Cloud) -> None:
    made = cloud.create("astray")
    with pytest.raises(exceptions.FailedPrecondition, match=r"Revision 'astray-none' does not exist or is deleted\. Update all traffic"):
        cloud.update(run_v2.Service(name=made.name, traffic=[pinned("astray-none", 100)]), "traffic")
    failed = cloud.get("astray")
    assert failed.terminal_condition.state.name == "CONDITION_FAILED"
    assert (failed.generation, failed.observed_generation) == (2, 1)
    assert httpx.get(made.uri).text == short(made.latest_ready_revision)
    assert not cloud.update(run_v2.Service(name=made.name), "traffic").reconciling


def test_who_asked_is_told_on_the_service_and_the_revision(cloud: Cloud) -> None:
    token = "." + base64.urlsafe_b64encode(b'{"email": "ann@example.org"}').decode().rstrip("=") + "."
    request = {"parent": PARENT, "service": cloud.service("signed"), "service_id": "signed"}
    signed = [("authorization", f"Bearer {token}")]
    made = cloud.services.create_service(request=request, metadata=signed).result(polling=SOON)
    assert (made.creator, made.last_modifier) == ("ann@example.org", "ann@example.org")
    assert cloud.revisions.get_revision(name=made.latest_created_revision).creator == "ann@example.org"
    changed = cloud.update(run_v2.Service(name=made.name, client="test"), "client")
    assert (changed.creator, changed.last_modifier, changed.client) == ("ann@example.org", "developer@localhost", "test")


def test_the_container_gets_its_environment_command_and_limits(cloud: Cloud) -> None:
    container = {"resources": {"limits": {"cpu": "0.5", "memory": "256Mi"}, "cpu_idle": True}, "ports": [{"container_port": 9000}]}
    made = cloud.create("env", env={"GREETING": "hallo"}, template={"container": container})
    env = httpx.get(made.uri + "/env").json()
    assert env["GREETING"] == "hallo"
    assert (env["PORT"], env["K_SERVICE"], env["K_CONFIGURATION"]) == ("9000", "env", "env")
    assert env["K_REVISION"] == short(made.latest_ready_revision)
    (running,) = [each for each in cloud.containers() if each.labels["relais.service"] == "env"]
    assert running.attrs["HostConfig"]["Memory"] == 256 * 2**20
    assert running.attrs["HostConfig"]["NanoCpus"] == 500_000_000
    assert made.template.max_instance_request_concurrency == 1


@pytest.mark.parametrize(("secret", "version"), [("..", "lock"), ("a", "../1"), ("a b", "1"), ("projects/p/secrets/", "1")])
def test_a_secret_is_named_and_never_a_path(cloud: Cloud, secret: str, version: str) -> None:
    service = cloud.service("wrong-secret")
    source = {"secret_key_ref": {"secret": secret, "version": version}}
    service.template.containers[0].env = [run_v2.EnvVar(name="PASSWORD", value_source=source)]
    with pytest.raises(exceptions.InvalidArgument, match=r"env\[PASSWORD\]: '.*' is not a (secret|version of a secret): use"):
        cloud.services.create_service(parent=PARENT, service=service, service_id="wrong-secret")


def test_a_service_is_public_by_the_field_or_by_the_policy_or_not_at_all(cloud: Cloud) -> None:
    made = cloud.create("private", public=False)
    refused = httpx.get(made.uri)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "text/html; charset=utf-8")
    policy = cloud.services.get_iam_policy(iam_policy_pb2.GetIamPolicyRequest(resource=made.name))
    assert policy.etag == b"\x00 \x01"
    stale = policy_pb2.Policy(etag=b"old")
    with pytest.raises(exceptions.Aborted, match="concurrent policy changes"):
        cloud.services.set_iam_policy(iam_policy_pb2.SetIamPolicyRequest(resource=made.name, policy=stale))
    policy.bindings.add(role="roles/run.invoker", members=["allUsers"])
    cloud.services.set_iam_policy(iam_policy_pb2.SetIamPolicyRequest(resource=made.name, policy=policy))
    assert httpx.get(made.uri).status_code == 200
    (warning,) = cloud.entries("requests", "private", "severity=WARNING")
    assert warning.text_payload.startswith("The request was not authenticated.")


def test_revisions_are_listed_newest_first_and_only_idle_old_ones_are_deleted(cloud: Cloud) -> None:
    cloud.create("many", revision="many-a")
    for name in ("many-b", "many-c"):
        service = cloud.get("many")
        service.template = cloud.template({"N": name}, name)
        service.traffic = [pinned("many-a", 100)]
        cloud.update(service, "template", "traffic")
    listed = [short(each.name) for each in cloud.revisions.list_revisions(parent=f"{PARENT}/services/many")]
    assert listed == ["many-c", "many-b", "many-a"]
    everywhere = [short(each.name) for each in cloud.revisions.list_revisions(parent=f"{PARENT}/services/-")]
    assert [name for name in everywhere if name.startswith("many-")] == listed
    for name, message in (("many-c", "latest created Revision 'many-c'"), ("many-a", 'Revision "many-a" cannot be directly deleted')):
        with pytest.raises(exceptions.FailedPrecondition, match=message):
            cloud.revisions.delete_revision(name=f"{PARENT}/services/many/revisions/{name}")
    cloud.revisions.delete_revision(name=f"{PARENT}/services/many/revisions/many-b").result(polling=SOON)
    with pytest.raises(exceptions.NotFound):
        cloud.revisions.get_revision(name=f"{PARENT}/services/many/revisions/many-b")


def test_a_deleted_service_is_gone_with_its_revisions_and_its_address(cloud: Cloud) -> None:
    made = cloud.create("doomed")
    cloud.services.delete_service(name=made.name).result(polling=SOON)
    with pytest.raises(exceptions.NotFound):
        cloud.get("doomed")
    with pytest.raises(exceptions.NotFound):
        cloud.revisions.get_revision(name=made.latest_ready_revision)
    with pytest.raises(httpx.ConnectError):
        httpx.get(made.uri)


def test_a_page_of_services_has_a_token_for_the_next(cloud: Cloud) -> None:
    parent = "projects/pages/locations/r"
    for name in ("a", "b", "c"):
        cloud.services.create_service(parent=parent, service=cloud.service(name), service_id=name)
    pages = list(cloud.services.list_services(request={"parent": parent, "page_size": 2}).pages)
    assert [[short(each.name) for each in page.services] for page in pages] == [["a", "b"], ["c"]]
    for name in ("a", "b", "c"):
        cloud.services.delete_service(name=f"{parent}/services/{name}")


@pytest.mark.parametrize("wrong_page", [{"page_token": "x"}, {"page_token": "²"}, {"page_token": "9" * 5000}, {"page_size": -1}])
def test_a_page_that_cannot_be_is_refused(cloud: Cloud, wrong_page: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidArgument, match=next(iter(wrong_page))):
        cloud.services.list_services(request={"parent": PARENT, **wrong_page})
    operations = operations_pb2_grpc.OperationsStub(cloud.channel)
    with pytest.raises(grpc.RpcError) as refused:
        operations.ListOperations(operations_pb2.ListOperationsRequest(name=PARENT, **wrong_page), timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_a_name_with_white_space_is_refused(cloud: Cloud) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="is not a location"):
        cloud.services.create_service(parent="projects/my project/locations/r", service=cloud.service("web"), service_id="web")


def test_a_method_that_is_not_served_says_so(cloud: Cloud) -> None:
    with pytest.raises(exceptions.MethodNotImplemented, match=r"does not serve google.logging.v2.LoggingServiceV2"):
        list(cloud.logging.list_monitored_resource_descriptors(request={}))


@pytest.mark.parametrize("raw", [b"\xff\xff", b"\x0a\x05ab"])
def test_bytes_that_are_no_request_are_refused(cloud: Cloud, raw: bytes) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        cloud.channel.unary_unary("/google.cloud.run.v2.Services/GetService")(raw, timeout=10)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_an_operation_can_be_waited_for_listed_and_forgotten(cloud: Cloud) -> None:
    begun = cloud.services.create_service(parent=PARENT, service=cloud.service("waiting"), service_id="waiting")
    assert begun.metadata.reconciling
    operations = operations_pb2_grpc.OperationsStub(cloud.channel)
    request = operations_pb2.WaitOperationRequest(name=begun.operation.name)
    request.timeout.FromSeconds(20)
    assert operations.WaitOperation(request).done
    request.timeout.seconds = 10**14
    assert operations.WaitOperation(request, timeout=10).done
    listed = operations.ListOperations(operations_pb2.ListOperationsRequest(name=PARENT)).operations
    assert listed[0].name == begun.operation.name
    operations.DeleteOperation(operations_pb2.DeleteOperationRequest(name=begun.operation.name))
    assert cloud.get("waiting").uri
