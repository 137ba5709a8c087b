"""Secret Manager by its official client: what is kept, what is given out, what is refused."""

import datetime
import stat
from collections.abc import Callable
from typing import Any

import grpc
import httpx
import pytest
from clouds import PARENT, SOON, Cloud, eventually
from google.api_core import exceptions
from google.cloud import run_v2, secretmanager_v1
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, SecretVersion
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from localcloud.secrets.secretmanager import crc32c

PROJECT = "projects/test-project"
STATE = SecretVersion.State


@pytest.fixture(scope="module")
def manager(cloud: Cloud) -> SecretManagerServiceClient:
    return client(cloud)


def client(cloud: Cloud) -> SecretManagerServiceClient:
    return SecretManagerServiceClient(transport=SecretManagerServiceClient.get_transport_class("grpc")(channel=cloud.channel))


def made(manager: SecretManagerServiceClient, name: str, *payloads: bytes, **fields: Any) -> secretmanager_v1.Secret:
    secret = secretmanager_v1.Secret(replication={"automatic": {}}, **fields)
    created = manager.create_secret(parent=PROJECT, secret_id=name, secret=secret)
    for each in payloads:
        manager.add_secret_version(parent=created.name, payload={"data": each})
    return created


def read(manager: SecretManagerServiceClient, secret: str, version: str = "latest") -> bytes:
    return manager.access_secret_version(name=f"{PROJECT}/secrets/{secret}/versions/{version}").payload.data


def test_a_secret_is_read_by_number_by_latest_and_by_an_alias(manager: SecretManagerServiceClient) -> None:
    secret = made(manager, "read", b"one", b"two", b"three")
    secret.version_aliases = {"blue": 2}
    manager.update_secret(secret=secret, update_mask={"paths": ["version_aliases"]})
    assert [read(manager, "read", version) for version in ("1", "latest", "blue")] == [b"one", b"three", b"two"]
    answer = manager.access_secret_version(name=f"{PROJECT}/secrets/read/versions/blue")
    assert answer.name == f"{secret.name}/versions/2"
    assert secret.name.startswith("projects/")
    assert secret.name.split("/")[1].isdigit()  # the real service answers with the project's number
    assert manager.access_secret_version(name=f"{secret.name}/versions/1").payload.data == b"one"


TIMES = (
    {"ttl": Duration(seconds=315_576_000_000)},
    {"ttl": Duration(seconds=-5)},
    {"expire_time": Timestamp(seconds=2**62)},
    {"expire_time": Timestamp(seconds=5)},
)


@pytest.mark.parametrize("wrong", TIMES, ids=str)
def test_a_secret_whose_time_cannot_be_is_refused(manager: SecretManagerServiceClient, wrong: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidArgument, match="must be later than now"):
        made(manager, "timely", **wrong)


@pytest.mark.parametrize(("data", "checksum"), [(b"123456789", 0xE3069283), (bytes(32), 0x8A9136AA)])
def test_checksums_are_those_of_the_crc32c_standard(data: bytes, checksum: int) -> None:  # RFC 3720, B.4, and the check value
    assert crc32c(data) == checksum


def test_payloads_come_with_their_checksum_and_a_wrong_one_is_refused(manager: SecretManagerServiceClient) -> None:
    secret = made(manager, "checked")
    good = manager.add_secret_version(parent=secret.name, payload={"data": b"123456789", "data_crc32c": 0xE3069283})
    assert good.client_specified_payload_checksum
    assert manager.access_secret_version(name=good.name).payload.data_crc32c == 0xE3069283
    with pytest.raises(exceptions.InvalidArgument, match="checksum does not match"):
        manager.add_secret_version(parent=secret.name, payload={"data": b"123456789", "data_crc32c": 1})


def test_a_disabled_or_destroyed_version_is_not_given_out_and_latest_stays_the_newest(manager: SecretManagerServiceClient) -> None:
    secret = made(manager, "states", b"one", b"two")
    manager.disable_secret_version(name=f"{secret.name}/versions/2")
    with pytest.raises(exceptions.FailedPrecondition) as refused:
        read(manager, "states")
    assert refused.value.message == f"Secret Version [{secret.name}/versions/2] is in DISABLED state."
    manager.enable_secret_version(name=f"{secret.name}/versions/2")
    assert read(manager, "states") == b"two"
    gone = manager.destroy_secret_version(name=f"{secret.name}/versions/2")
    assert gone.state == STATE.DESTROYED
    assert gone.destroy_time >= gone.create_time
    for change in (manager.enable_secret_version, manager.disable_secret_version, manager.destroy_secret_version):
        with pytest.raises(exceptions.FailedPrecondition, match="is in DESTROYED state"):
            change(name=gone.name)
    assert [each.state for each in manager.list_secret_versions(parent=secret.name)] == [STATE.DESTROYED, STATE.ENABLED]
    assert len(list(manager.list_secret_versions(request={"parent": secret.name, "filter": "state:ENABLED"}))) == 1
    assert manager.add_secret_version(parent=secret.name, payload={"data": b"three"}).name == f"{secret.name}/versions/3"


def test_what_is_missing_is_told_in_the_real_words(manager: SecretManagerServiceClient) -> None:
    empty = made(manager, "empty")
    full = made(manager, "full", b"x")
    for call, text in [
        (lambda: read(manager, "empty"), f"Secret [{empty.name}] not found or has no versions."),
        (lambda: read(manager, "full", "7"), f"Secret Version [{full.name}/versions/7] not found."),
        (lambda: manager.get_secret(name=f"{PROJECT}/secrets/none"), f"Secret [{empty.name.replace('empty', 'none')}] not found."),
        (lambda: made(manager, "full"), f"Secret [{full.name}] already exists."),
        (lambda: manager.access_secret_version(name="projects/p/s"), "Resource ID [projects/p/s] is not in a valid format."),
        (lambda: made(manager, ""), "The provided Secret ID [] does not match the expected format [[a-zA-Z_0-9]+]"),
        (lambda: manager.add_secret_version(request={"parent": full.name}), "Field [payload] is required."),
        (lambda: manager.add_secret_version(parent=full.name, payload={}), "Secret Payload cannot be empty."),
    ]:
        with pytest.raises(exceptions.GoogleAPICallError) as refused:
            call()
        assert refused.value.message == text


def test_a_payload_has_at_most_64_kib(manager: SecretManagerServiceClient) -> None:
    secret = made(manager, "large", bytes(65536))
    with pytest.raises(exceptions.InvalidArgument, match="65536"):
        manager.add_secret_version(parent=secret.name, payload={"data": bytes(65537)})


def test_etags_are_checked_where_they_are_given(manager: SecretManagerServiceClient) -> None:
    old = made(manager, "etag", b"x")
    new = manager.update_secret(secret={"name": old.name, "labels": {"a": "b"}, "etag": old.etag}, update_mask={"paths": ["labels"]})
    assert new.etag != old.etag
    with pytest.raises(exceptions.FailedPrecondition, match="etag"):
        manager.update_secret(secret={"name": old.name, "etag": old.etag}, update_mask={"paths": ["labels"]})
    with pytest.raises(exceptions.FailedPrecondition, match="etag"):
        manager.delete_secret(request={"name": old.name, "etag": old.etag})
    with pytest.raises(exceptions.FailedPrecondition, match="etag"):
        manager.disable_secret_version(request={"name": f"{old.name}/versions/1", "etag": '"0"'})
    manager.delete_secret(request={"name": old.name, "etag": new.etag})
    with pytest.raises(exceptions.NotFound):
        manager.get_secret(name=old.name)
    made(manager, "etag")
    with pytest.raises(exceptions.NotFound):  # the deleted one's versions do not come back
        read(manager, "etag")


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": {"Upper": "x"}},
        {"labels": {"a": "With Space"}},
        {"version_aliases": {"first": 1}},
        {"version_aliases": {"latest": 1}},
        {"annotations": {"a": "x" * 16384}},
    ],
)
def test_what_a_secret_cannot_have_is_refused(manager: SecretManagerServiceClient, fields: dict[str, Any]) -> None:
    with pytest.raises(exceptions.InvalidArgument):
        made(manager, "refused", **fields)


def test_secrets_are_listed_in_pages_newest_first_and_by_label(manager: SecretManagerServiceClient) -> None:
    for number in range(5):
        secret = secretmanager_v1.Secret(replication={"automatic": {}}, labels={"odd": str(number % 2)})
        manager.create_secret(parent="projects/pages", secret_id=f"s{number}", secret=secret)
    names = [each.name.rsplit("/", 1)[1] for each in manager.list_secrets(request={"parent": "projects/pages", "page_size": 2})]
    assert names == ["s4", "s3", "s2", "s1", "s0"]
    odd = manager.list_secrets(request={"parent": "projects/pages", "filter": "labels.odd=1"})
    assert [each.name.rsplit("/", 1)[1] for each in odd] == ["s3", "s1"]
    with pytest.raises(exceptions.InvalidArgument, match="filter"):
        manager.list_secrets(request={"parent": "projects/pages", "filter": "(a OR b)"})


def test_a_secret_with_a_time_to_live_tells_when_it_ends(manager: SecretManagerServiceClient) -> None:
    secret = made(manager, "mortal", b"x", ttl=datetime.timedelta(hours=1))
    left = secret.expire_time - secret.create_time
    assert datetime.timedelta(minutes=59) < left <= datetime.timedelta(hours=1, seconds=1)


def test_an_instance_reads_its_secrets_when_it_starts_and_latest_is_the_latest_then(cloud: Cloud) -> None:
    cloud.keep_secret("password", b"old")
    service = cloud.service("secret")
    source = {"secret_key_ref": {"secret": "password", "version": "latest"}}
    service.template.containers[0].env = [run_v2.EnvVar(name="PASSWORD", value_source=source)]
    made = cloud.services.create_service(parent=PARENT, service=service, service_id="secret").result(polling=SOON)
    cloud.keep_secret("password", b"sesame")
    assert httpx.get(made.uri + "/env").json()["PASSWORD"] == "old"
    httpx.get(made.uri + "/exit?code=1", timeout=10)
    assert eventually(lambda: answered(made.uri + "/env"))["PASSWORD"] == "sesame"


def answered(url: str) -> Any:
    answer = httpx.get(url, timeout=20)
    return answer.json() if answer.status_code == 200 else None


def test_a_revision_whose_secret_is_not_given_out_fails_in_the_real_words(cloud: Cloud, manager: SecretManagerServiceClient) -> None:
    name = cloud.keep_secret("fading", b"x").rsplit("/versions/")[0]
    cloud.create("fading")

    def failure(secret: str, version: str) -> str:
        service = cloud.get("fading")
        source = {"secret_key_ref": {"secret": secret, "version": version}}
        service.template.containers[0].env = [run_v2.EnvVar(name="PASSWORD", value_source=source)]
        with pytest.raises(exceptions.FailedPrecondition) as refused:
            cloud.update(service, "template")
        revision = cloud.revisions.get_revision(name=cloud.get("fading").latest_created_revision)
        assert revision.conditions[0].reason.name == "SECRETS_ACCESS_CHECK_FAILED"
        assert not cloud.get("fading").reconciling
        return str(refused.value.message)

    where = "spec.template.spec.containers[0].env[0].value_from.secret_key_ref.name: "
    assert failure("none", "latest").endswith(f"{where}Secret {name.replace('fading', 'none')}/versions/latest was not found")
    cloud.keep_secret("fading", b"\xff\xfe")
    assert "/versions/latest contains non-UTF8 data." in failure("fading", "latest")
    manager.disable_secret_version(name=f"{name}/versions/1")
    full = f"{PROJECT}/secrets/fading"
    text = f"Failed to access secret {full}/versions/1: Secret Version [{name}/versions/1] is in DISABLED state."
    assert failure(full, "1").endswith(where + text)
    denial = cloud.ask("POST", "/denials", {"permission": "secretmanager.versions.access", "member": "*-compute@*"})["id"]
    number = name.split("/")[1]
    text = f"Permission denied on secret: {name}/versions/2 for Revision service account {number}-compute@developer.gserviceaccount.com. "
    assert where + text in failure("fading", "2")
    cloud.ask("DELETE", f"/denials/{denial}")


def test_secrets_survive_a_restart_in_a_file_for_this_user_alone(own_cloud: Callable[..., Cloud]) -> None:
    cloud = own_cloud()
    made(client(cloud), "kept", b"sesame-4711")
    cloud.stop()
    assert stat.S_IMODE((cloud.state / "cloud.sqlite").stat().st_mode) == 0o600
    cloud.start()
    assert read(client(cloud), "kept") == b"sesame-4711"
    cloud.stop()
    assert "sesame-4711" not in (cloud.state.parent / f"{cloud.clone}.log").read_text()


def test_what_is_not_served_is_unimplemented(manager: SecretManagerServiceClient) -> None:
    with pytest.raises(exceptions.MethodNotImplemented) as refused:
        manager.rotate_secret(request={})
    assert refused.value.grpc_status_code == grpc.StatusCode.UNIMPLEMENTED
