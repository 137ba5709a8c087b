"""L'API, de bout en bout dans le processus."""

import base64
from collections.abc import Iterator

import pytest
from starlette.testclient import TestClient

from backend.faults import Faults
from backend.main import create_app

MEMBER = {"Authorization": "Basic " + base64.b64encode(b"fg@example.org:secret").decode()}


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(create_app(Faults())) as client:
        yield client


def test_health_is_word_for_word_what_the_runbook_expects(client: TestClient) -> None:
    assert client.get("/api/health").json() == {"status": "ok", "message": "Emergence Backend is running."}


def test_the_cache_metrics_are_exposed(client: TestClient) -> None:
    text = client.get("/api/metrics").text
    for name in ("cache_hits_total", "cache_misses_total", "cache_size"):
        assert f"# TYPE memory_analysis_{name}" in text


def test_a_message_is_accepted_and_a_bad_body_is_refused(client: TestClient) -> None:
    assert client.post("/api/memory/analyze", json={"message": "Je préfère Python"}).status_code == 202
    assert client.post("/api/memory/analyze", json={"message": ""}).status_code == 422
    assert client.post("/api/memory/analyze", content=b"{").status_code == 400


def test_a_chat_opens_a_session(client: TestClient) -> None:
    with client.websocket_connect("/ws/matin") as chat:
        chat.send_text("bonjour")
        assert chat.receive_json() == {"role": "assistant", "content": "bonjour"}
    assert client.get("/api/sessions").json() == {"sessions": [{"id": "matin", "messages": 1}]}


def test_members_only_routes_ask_for_a_login(client: TestClient) -> None:
    assert client.post("/api/memory/clear").status_code == 401
    assert client.post("/api/memory/clear", headers=MEMBER).json()["status"] == "ok"
    document = {"name": "note.txt", "content": "deux mots"}
    assert client.post("/api/documents", json=document, headers=MEMBER).json()["words"] == 2
    assert client.get("/api/benchmarks", headers=MEMBER).json()["rounds"] == 200


def test_the_version_is_the_one_of_the_file(client: TestClient) -> None:
    assert client.get("/api/version").json()["version"].count(".") == 2
