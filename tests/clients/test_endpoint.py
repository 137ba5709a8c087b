"""The seam to Google's API: one client an endpoint, and every error of theirs is one of ours."""

import pickle
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from google.api_core import exceptions as google
from google.auth import exceptions as auth
from google.cloud import run_v2

from relais.clients.endpoint import client_of, ours, reading, translated, transport_for
from relais.errors import Conflict, Denied, Missing, RelaisError, Unavailable

OUTAGES = [
    google.ServiceUnavailable("503"), google.TooManyRequests("429"), google.ResourceExhausted("Quota exceeded"),
    google.InternalServerError("500"), google.InternalServerError("Stream removed"), google.GatewayTimeout("504"),
    google.DeadlineExceeded("deadline"), google.RetryError("timeout", google.ServiceUnavailable("gone")), google.BadGateway("502"),
    google.Unknown("?"), google.Cancelled("channel closed"), auth.TransportError("no route to host"),
]  # fmt: skip
REFUSALS = [
    google.PermissionDenied("no"), google.Forbidden("403"), google.Unauthenticated("who?"), google.Unauthorized("401"),
    google.InvalidArgument("bad"), google.FailedPrecondition("not now"), google.AlreadyExists("there"), google.BadRequest("400"),
    google.OutOfRange("far"), google.MethodNotImplemented("UNIMPLEMENTED"), auth.DefaultCredentialsError("none"),
    auth.RefreshError("expired"),
    google.ServiceUnavailable("Getting metadata from plugin failed with error: Reauthentication is needed."),
]  # fmt: skip


def name_of(error: Exception) -> str:
    return f"{type(error).__name__}"


@pytest.mark.parametrize("error", OUTAGES, ids=name_of)
def test_an_outage_is_unavailable_and_may_be_retried(error: Exception) -> None:
    assert type(ours(error, "somewhere")) is Unavailable


@pytest.mark.parametrize("error", REFUSALS, ids=name_of)
def test_a_final_answer_is_denied(error: Exception) -> None:
    assert type(ours(error, "somewhere")) is Denied


@pytest.mark.parametrize("error", [google.Aborted("etag"), google.Conflict("409")], ids=name_of)
def test_somebody_elses_write_in_between_is_a_conflict(error: Exception) -> None:
    found = ours(error, "service app")
    assert type(found) is Conflict
    assert "look at who" in found.remedy


def test_what_is_not_there_is_missing_which_is_a_refusal() -> None:
    assert type(ours(google.NotFound("Resource 'app' does not exist."), "app")) is Missing
    assert issubclass(Missing, Denied)


REMEDIES = [
    (google.PermissionDenied("Permission 'run.services.update' denied on resource 'x'"), "a role with run.services.update"),
    (google.PermissionDenied('Permission "artifactregistry.repositories.get" denied'), "a role with artifactregistry.repositories.get"),
    (
        google.PermissionDenied("Permission 'iam.serviceaccounts.actAs' denied on service account sa@p.iam.gserviceaccount.com"),
        "roles/iam.serviceAccountUser on sa@p.iam.gserviceaccount.com",
    ),
    (google.PermissionDenied("Cloud Run Admin API has not been used in project 7 before or it is disabled."), "enable the API"),
    (google.PermissionDenied("denied"), "roles/run.viewer"),
    (google.Unauthenticated("no token"), "gcloud auth application-default login"),
    (google.TooManyRequests("Quota exceeded for quota metric 'Read requests'"), "wait a minute"),
    (auth.DefaultCredentialsError("not found"), "gcloud auth application-default login"),
    (auth.RefreshError("invalid_grant"), "gcloud auth application-default login"),
]


@pytest.mark.parametrize(("error", "remedy"), REMEDIES)
def test_the_remedy_is_the_one_that_the_text_tells(error: Exception, remedy: str) -> None:
    assert remedy in ours(error, "somewhere", needs="roles/run.viewer").remedy


def test_an_error_says_where_and_survives_pickling() -> None:
    with pytest.raises(Conflict) as caught, translated("service app"):
        raise google.Aborted("Conflict for resource 'app'")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.where, again.what) == ("service app", "Conflict for resource 'app'")


def test_our_own_errors_and_mistakes_pass_unchanged() -> None:
    with pytest.raises(ZeroDivisionError), translated("x"):
        raise ZeroDivisionError
    with pytest.raises(Missing, match="ours"), translated("x"):
        raise Missing("ours")


@pytest.mark.usefixtures("at_cloud")
def test_the_local_cloud_is_reached_and_its_not_found_is_missing() -> None:
    client = client_of(run_v2.ServicesClient)
    with pytest.raises(Missing, match="does not exist"), translated("service nobody"):
        client.get_service(name="projects/p/locations/europe-west1/services/nobody", timeout=10)


@pytest.mark.usefixtures("at_cloud")
def test_a_process_has_one_client_of_a_kind_for_each_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    here = client_of(run_v2.ServicesClient)
    assert client_of(run_v2.ServicesClient) is here
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", "127.0.0.1:1")
    assert client_of(run_v2.ServicesClient) is not here
    assert transport_for(run_v2.ServicesClient)["transport"].grpc_channel is transport_for(run_v2.RevisionsClient)["transport"].grpc_channel


def test_nobody_at_the_endpoint_is_an_outage_within_the_time_given(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    begun = time.monotonic()
    with pytest.raises(Unavailable) as caught, translated("service app"):
        client_of(run_v2.ServicesClient).get_service(name="projects/p/locations/r/services/app", **reading(1.5))
    assert time.monotonic() - begun < 5
    assert "nobody answers" in caught.value.what
    assert "`make up` starts it" in caught.value.remedy


def test_without_an_endpoint_and_without_credentials_the_remedy_names_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CLOUDRUN_EMULATOR_HOST", raising=False)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(tmp_path))
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    with pytest.raises(RelaisError) as caught:
        client_of(run_v2.ServicesClient)
    assert type(caught.value) is Denied
    assert "gcloud auth application-default login" in caught.value.remedy
    assert "CLOUDRUN_EMULATOR_HOST" in caught.value.remedy


def test_a_client_finds_a_local_cloud_that_was_restarted(new_cloud: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    cloud = new_cloud()
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)
    client, parent = client_of(run_v2.ServicesClient), "projects/p/locations/europe-west1"
    assert list(client.list_services(parent=parent, **reading())) == []
    cloud.restart()
    assert list(client.list_services(parent=parent, **reading())) == []
