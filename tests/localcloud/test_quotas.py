"""Quotas, denied permissions and tokens: refusals in the real words, with the details that official clients show."""

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from clouds import PARENT, SOON, Cloud, PushFailed, push
from google.api_core import exceptions
from google.cloud import artifactregistry_v1 as ar
from google.cloud import run_v2
from google.cloud.monitoring_v3 import MetricServiceClient
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.iam.v1 import iam_policy_pb2

EMAIL = "deployer@test-project.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def as_before(cloud: Cloud) -> Iterator[None]:
    """Every test leaves the cloud without limits and denials."""
    yield
    quotas = {"run_writes": None, "run_reads": None, "log_reads": None}
    cloud.ask("PATCH", "/behaviour", {"quotas": quotas, "registry_auth": False, "log_delay_s": 0, "startup_seconds": 3})
    for each in cloud.ask("GET", "/denials")["denials"]:
        cloud.ask("DELETE", f"/denials/{each['id']}")


def deny(cloud: Cloud, permission: str, **values: str) -> None:
    cloud.ask("POST", "/denials", {"permission": permission, **values})


def listed(client: run_v2.ServicesClient) -> object:
    return client.list_services(parent=PARENT, retry=None)


def test_reads_beyond_the_quota_are_refused_in_the_real_words(cloud: Cloud) -> None:
    listed(cloud.services)
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_reads": 0}})
    with pytest.raises(exceptions.ResourceExhausted) as refused:
        listed(cloud.services)
    text = "Quota exceeded for quota metric 'Read requests' and limit 'Read requests per minute per region' of service 'run.googleapis.com'"
    assert text in refused.value.message
    assert refused.value.reason == "RATE_LIMIT_EXCEEDED"
    assert refused.value.metadata["quota_limit_value"] == "0"


def test_writes_and_log_reads_have_quotas_of_their_own(cloud: Cloud) -> None:
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_writes": 0, "log_reads": 0}})
    listed(cloud.services)
    with pytest.raises(exceptions.ResourceExhausted, match="'Write requests per minute per region'"):
        cloud.services.delete_service(name=f"{PARENT}/services/none")
    with pytest.raises(exceptions.ResourceExhausted, match=r"'Read requests per minute' of service 'logging\.googleapis\.com'"):
        cloud.logging.list_log_entries(request={"resource_names": ["projects/test-project"]}, retry=None)


def test_the_behaviour_changes_key_by_key_and_refuses_what_it_does_not_have(cloud: Cloud) -> None:
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_reads": 5000}})
    assert cloud.ask("PATCH", "/behaviour", {"quotas": {"log_reads": 60}})["quotas"] == {
        "run_writes": None, "run_reads": 5000, "log_reads": 60,
    }  # fmt: skip
    refused = cloud.request("PATCH", "/behaviour", {"quotas": {"log_read": 60}}).json()
    assert refused["remedy"] == "Did you mean 'log_reads'?"
    assert cloud.request("PATCH", "/behaviour", {"quotas": {"log_reads": -1}}).status_code == 400


def test_entries_come_as_late_as_the_behaviour_says(cloud: Cloud) -> None:
    name = "projects/test-project/logs/delayed"
    for delay, text in ((600, "late"), (0, "at once")):
        cloud.ask("PATCH", "/behaviour", {"log_delay_s": delay})
        cloud.logging.write_log_entries(log_name=name, resource={"type": "global"}, entries=[{"text_payload": text}])
    request = {"resource_names": ["projects/test-project"], "filter": f'logName="{name}"'}
    assert [each.text_payload for each in cloud.logging.list_log_entries(request)] == ["at once"]


def test_a_container_has_as_long_to_start_as_the_behaviour_says(cloud: Cloud) -> None:
    cloud.ask("PATCH", "/behaviour", {"startup_seconds": 0.3})
    with pytest.raises(exceptions.GoogleAPICallError, match="failed to start and listen"):
        cloud.create("hurried", env={"SLOW": "1.5"})


def test_a_denied_permission_is_refused_in_the_real_words(cloud: Cloud) -> None:
    deny(cloud, "run.services.get", resource="*/services/secret")
    with pytest.raises(exceptions.PermissionDenied) as refused:
        cloud.get("secret")
    name = f"{PARENT}/services/secret"
    assert refused.value.message == f"Permission 'run.services.get' denied on resource '{name}' (or resource may not exist)."
    assert refused.value.reason == "IAM_PERMISSION_DENIED"
    with pytest.raises(exceptions.NotFound):
        cloud.get("other")


def test_a_denial_on_one_project_holds_where_a_call_names_several(cloud: Cloud) -> None:
    deny(cloud, "logging.logEntries.*", resource="projects/shut*")
    for names in (["projects/p", "projects/shut"], ["projects/shut", "projects/p"]):
        with pytest.raises(exceptions.PermissionDenied):
            cloud.logging.list_log_entries(resource_names=names, retry=None)
    cloud.logging.list_log_entries(resource_names=["projects/p"])
    entry, hidden = ({"log_name": name, "text_payload": "x"} for name in ("projects/p/logs/app", "projects/shut/logs/app"))
    resource = {"type": "global"}
    with pytest.raises(exceptions.PermissionDenied):
        cloud.logging.write_log_entries(log_name=entry["log_name"], resource=resource, labels={}, entries=[entry, hidden], retry=None)
    cloud.logging.write_log_entries(log_name=hidden["log_name"], resource=resource, labels={}, entries=[entry])


def test_a_deployment_needs_to_act_as_its_service_account(cloud: Cloud) -> None:
    deny(cloud, "iam.serviceaccounts.actAs")
    with pytest.raises(exceptions.PermissionDenied, match=r"'iam.serviceaccounts.actAs' denied on service account \d+-compute@"):
        cloud.create("as-nobody")


def test_a_denial_for_one_member_leaves_the_others_alone(cloud: Cloud) -> None:
    deny(cloud, "run.services.list", member=f"serviceAccount:{EMAIL}")
    listed(cloud.services)
    token = cloud.ask("POST", "/tokens", {"email": EMAIL})["token"]
    credentials = grpc.composite_channel_credentials(grpc.local_channel_credentials(), grpc.access_token_call_credentials(token))
    transport = run_v2.ServicesClient.get_transport_class("grpc")
    with grpc.secure_channel(f"127.0.0.1:{cloud.port}", credentials) as channel, pytest.raises(exceptions.PermissionDenied):
        listed(run_v2.ServicesClient(transport=transport(channel=channel)))


def test_what_everybody_may_do_is_told_by_the_denials(cloud: Cloud) -> None:
    cloud.create("asked")
    deny(cloud, "run.services.delete")
    request = iam_policy_pb2.TestIamPermissionsRequest(
        resource=f"{PARENT}/services/asked", permissions=["run.services.get", "run.services.delete"]
    )
    assert list(cloud.services.test_iam_permissions(request).permissions) == ["run.services.get"]


@pytest.mark.parametrize(
    ("permission", "call", "text"),
    [
        ("artifactregistry.repositories.list", lambda each: each.of(ar.ArtifactRegistryClient).list_repositories(parent=PARENT), PARENT),
        ("logging.logEntries.list", lambda each: each.logging.list_log_entries(resource_names=["projects/p"]), "logging.logEntries.list"),
        ("monitoring.metricDescriptors.list", lambda each: each.of(MetricServiceClient).list_metric_descriptors(name="projects/p"), ""),
        ("secretmanager.secrets.list", lambda each: each.of(SecretManagerServiceClient).list_secrets(parent="projects/p"), "projects/p"),
        ("run.operations.list", lambda each: each.services.list_operations({"name": PARENT}), PARENT),
    ],
)
def test_each_api_refuses_what_is_denied_and_serves_it_before(cloud: Cloud, permission: str, call: Any, text: str) -> None:
    call(cloud)
    deny(cloud, permission)
    with pytest.raises(exceptions.PermissionDenied) as refused:
        call(cloud)
    assert permission in refused.value.message
    assert text in refused.value.message


def test_images_are_refused_to_nobody_in_particular_and_to_the_service_agent(cloud: Cloud) -> None:
    artifacts = cloud.of(ar.ArtifactRegistryClient)
    wanted = ar.Repository(format_=ar.Repository.Format.DOCKER)
    uri = artifacts.create_repository(parent=PARENT, repository_id="shut", repository=wanted).result(polling=SOON).registry_uri
    deny(cloud, "artifactregistry.repositories.uploadArtifacts", resource="*/repositories/shut")
    with pytest.raises(PushFailed, match='uploadArtifacts" denied on resource'):
        push(f"{uri}/web:t1", cloud.image)
    agent = "service-*@serverless-robot-prod.iam.gserviceaccount.com"
    deny(cloud, "artifactregistry.repositories.downloadArtifacts", member=agent)
    with pytest.raises(exceptions.FailedPrecondition, match="must have permission to read the image"):
        cloud.create("closed", template={"image": f"{uri}/web:t1"})
    ready = next(each for each in cloud.get("closed").conditions if each.type_ == "ConfigurationsReady")
    assert ready.state == run_v2.Condition.State.CONDITION_FAILED
    revision = cloud.revisions.get_revision(name=cloud.get("closed").latest_created_revision)
    assert {each.reason for each in revision.conditions} >= {run_v2.Condition.CommonReason.CONTAINER_PERMISSION_DENIED}
