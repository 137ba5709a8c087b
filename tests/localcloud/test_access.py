"""Who may call a service: tokens, members, ingress, and what the log and the instance see of it."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import httpx
import pytest
from clouds import PARENT, Cloud, eventually, pinned
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2

from localcloud.traffic.identity import Identity

ANN, BOT = "ann@example.com", "bot@p.iam.gserviceaccount.com"


def allow(cloud: Cloud, name: str, *members: str, role: str = "roles/run.invoker") -> None:
    policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role=role, members=members)])
    cloud.services.set_iam_policy(iam_policy_pb2.SetIamPolicyRequest(resource=f"{PARENT}/services/{name}", policy=policy))


def called(url: str, token: str = "", header: str = "Authorization", **more: str) -> httpx.Response:
    return httpx.get(url, headers={**({header: f"Bearer {token}"} if token else {}), **more})


@pytest.fixture(scope="module")
def tokens(cloud: Cloud) -> Iterator[Identity]:
    """The cloud's own issuer of tokens: its key is in the state."""
    with closing(sqlite3.connect(cloud.state / "cloud.sqlite", timeout=10)) as connection:
        made = Identity(connection)
        connection.commit()
        yield made


@pytest.fixture(scope="module")
def private(cloud: Cloud) -> Any:
    """A service that asks who calls, with a revision that is tagged."""
    made = cloud.create("private", revision="private-a", public=False, custom_audiences=["https://api.example.com"])
    cloud.update(run_v2.Service(name=made.name, traffic=[pinned("private-a", 100, "next")]), "traffic")
    allow(cloud, "private", f"user:{ANN}", f"serviceAccount:{BOT}", "domain:example.org")
    return cloud.get("private")


def test_a_caller_without_a_token_gets_the_page_and_the_log_says_why(cloud: Cloud, private: Any) -> None:
    answer = called(private.uri + "/secret")
    assert (answer.status_code, answer.headers["content-type"]) == (403, "text/html; charset=utf-8")
    assert "Your client does not have permission to get URL <code>/secret</code> from this server." in answer.text
    (entry,) = eventually(lambda: cloud.entries("requests", "private", 'httpRequest.requestUrl:"/secret"'))
    assert (entry.severity, entry.http_request.status) == (400, 403)
    assert entry.text_payload.startswith("The request was not authenticated. Either allow unauthenticated invocations or set the proper")


@pytest.mark.parametrize("email", [ANN, BOT, "somebody@example.org", "Ann@Example.com"])
def test_members_of_the_policy_may_call(private: Any, tokens: Identity, email: str) -> None:
    assert called(private.uri, tokens.issue(email, private.uri)).status_code == 200


def test_another_caller_is_refused_and_the_log_says_why(cloud: Cloud, private: Any, tokens: Identity) -> None:
    for email in ("eve@example.com", "bot@q.iam.gserviceaccount.com"):
        answer = called(private.uri + "/other", tokens.issue(email, private.uri))
        assert (answer.status_code, "Error: Forbidden" in answer.text) == (403, True)
    entry = eventually(lambda: cloud.entries("requests", "private", 'httpRequest.requestUrl:"/other"'))[0]
    assert (entry.severity, entry.text_payload.split(" Read")[0]) == (400, "The request was not authorized to invoke this service.")


def test_a_token_that_cannot_be_verified_is_401(cloud: Cloud, private: Any, tokens: Identity) -> None:
    good = tokens.issue(ANN, private.uri)
    (tag,) = [each.uri for each in private.traffic_statuses if each.tag]
    bad = [
        "nonsense", good[:-2], good.rpartition(".")[0] + ".SIGNATURE_REMOVED_BY_GOOGLE", tokens.issue(ANN, private.uri, -1),
        tokens.issue(ANN, "https://other.example.com"), tokens.issue(ANN, tag),
    ]  # fmt: skip
    for token in bad:
        answer = called(private.uri + "/bad", token)
        assert answer.status_code == 401, token
        assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token" error_description="The access token could not')
        assert "Your client does not have permission to the requested URL <code>/bad</code>." in answer.text
    assert httpx.get(private.uri + "/bad", auth=("ann", "password")).status_code == 401
    found = eventually(lambda: len(seen := cloud.entries("requests", "private", 'httpRequest.requestUrl:"/bad"')) == 7 and seen)
    assert {each.severity for each in found} == {400}
    assert all("The access token could not be verified." in each.text_payload for each in found)


def test_a_token_is_for_the_services_url_or_a_custom_audience_also_at_a_tags_url(private: Any, tokens: Identity) -> None:
    (tag,) = [each.uri for each in private.traffic_statuses if each.tag]
    for url, audience in ((private.uri, private.uri + "/"), (private.uri, "https://api.example.com"), (tag, private.uri)):
        assert called(url, tokens.issue(ANN, audience)).status_code == 200


def test_the_instance_gets_the_token_without_its_signature(private: Any, tokens: Identity) -> None:
    token = tokens.issue(ANN, private.uri)
    seen = httpx.Headers(called(private.uri + "/headers", token).json())
    assert seen["authorization"] == f"Bearer {token.rpartition('.')[0]}.SIGNATURE_REMOVED_BY_GOOGLE"


def test_the_serverless_header_is_looked_at_alone_where_it_is_given(private: Any, tokens: Identity) -> None:
    token = tokens.issue(ANN, private.uri)
    answer = called(private.uri + "/headers", token, "X-Serverless-Authorization", Authorization="Basic of-the-service")
    seen = httpx.Headers(answer.json())
    assert seen["authorization"] == "Basic of-the-service"
    assert token not in json.dumps(dict(seen))
    assert called(private.uri, "bad", "X-Serverless-Authorization", Authorization=f"Bearer {token}").status_code == 401


@pytest.mark.parametrize(
    ("member", "role", "status"),
    [
        ("allAuthenticatedUsers", "roles/run.invoker", 200),
        (f"user:{ANN}", "roles/run.admin", 200),
        (f"user:{ANN}", "roles/run.servicesInvoker", 200),
        (f"user:{ANN}", "roles/run.viewer", 403),
        (f"serviceAccount:{ANN}", "roles/run.invoker", 403),
        ("group:all@example.com", "roles/run.invoker", 403),
    ],
)
def test_what_a_binding_means(cloud: Cloud, tokens: Identity, member: str, role: str, status: int) -> None:
    if "bound" not in {each.name.rpartition("/")[2] for each in cloud.services.list_services(parent=PARENT)}:
        cloud.create("bound", public=False)
    uri = cloud.get("bound").uri
    allow(cloud, "bound", member, role=role)
    assert called(uri, tokens.issue(ANN, uri)).status_code == status
    assert called(uri).status_code == 403


def test_a_service_for_everybody_gets_the_headers_as_they_are(cloud: Cloud) -> None:
    made = cloud.create("everybody", public=False)
    allow(cloud, "everybody", "allUsers")
    assert httpx.Headers(called(made.uri + "/headers", "the services own").json())["authorization"] == "Bearer the services own"


def test_the_issuers_key_outlives_a_restart(own_cloud: Any) -> None:
    cloud = own_cloud()
    uri = cloud.create("kept", public=False).uri
    allow(cloud, "kept", f"user:{ANN}")
    with closing(sqlite3.connect(cloud.state / "cloud.sqlite", timeout=10)) as connection:
        token = Identity(connection).issue(ANN, uri)
        connection.commit()
    cloud.stop()
    cloud.start()
    assert called(uri, token).status_code == 200


def from_inside(url: str) -> int:
    """Asked from another address than the machine's main one: that is the inside."""
    with httpx.Client(transport=httpx.HTTPTransport(local_address="127.0.0.2")) as client:
        return client.get(url).status_code


def test_ingress_lets_in_the_inside_alone_or_nobody_and_the_log_knows_nothing_of_the_others(cloud: Cloud) -> None:
    made = cloud.create("inner", ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_INTERNAL_ONLY)
    refused = httpx.get(made.uri + "/outside")
    assert (refused.status_code, "The requested URL was not found on this server." in refused.text) == (404, True)
    assert from_inside(made.uri + "/inside") == 200
    cloud.update(run_v2.Service(name=made.name, ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_NONE), "ingress")
    assert from_inside(made.uri) == 404
    cloud.update(run_v2.Service(name=made.name, ingress=run_v2.IngressTraffic.INGRESS_TRAFFIC_ALL), "ingress")
    assert httpx.get(made.uri + "/outside-again").status_code == 200
    seen = eventually(lambda: len(found := cloud.entries("requests", "inner")) >= 2 and found)
    assert [each.http_request.request_url.removeprefix(made.uri) for each in seen] == ["/inside", "/outside-again"]


def test_a_default_url_that_is_disabled_is_not_found(cloud: Cloud) -> None:
    made = cloud.create("hidden")
    cloud.update(run_v2.Service(name=made.name, default_uri_disabled=True), "default_uri_disabled")
    assert httpx.get(made.uri).status_code == 404
    cloud.update(run_v2.Service(name=made.name, default_uri_disabled=False), "default_uri_disabled")
    assert httpx.get(made.uri).status_code == 200
