"""Quotas, denied permissions and tokens: refusals in the real words, with the details that official clients show."""

from collections.abc import Iterator

import grpc
import pytest
from clouds import PARENT, Cloud
from google.api_core import exceptions
from google.cloud import run_v2

EMAIL = "deployer@test-project.iam.gserviceaccount.com"


@pytest.fixture(autouse=True)
def as_before(cloud: Cloud) -> Iterator[None]:
    """Every test leaves the cloud without limits and denials."""
    yield
    cloud.ask("PATCH", "/behaviour", {"quotas": {"run_writes": None, "run_reads": None, "log_reads": None}, "registry_auth": False})
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


def test_a_denied_permission_is_refused_in_the_real_words(cloud: Cloud) -> None:
    deny(cloud, "run.services.get", resource="*/services/secret")
    with pytest.raises(exceptions.PermissionDenied) as refused:
        cloud.get("secret")
    name = f"{PARENT}/services/secret"
    assert refused.value.message == f"Permission 'run.services.get' denied on resource '{name}' (or resource may not exist)."
    assert refused.value.reason == "IAM_PERMISSION_DENIED"
    with pytest.raises(exceptions.NotFound):
        cloud.get("other")


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
