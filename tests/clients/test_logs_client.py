"""Cloud Logging, read through the official client: a revision's lines and a service's requests."""

import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import docker
import httpx
import pytest
from google.cloud import run_v2
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.cloud.logging_v2.types import LogEntry

from relais.clients.endpoint import client_of
from relais.clients.logs import Logs, RequestLine
from relais.errors import Unavailable
from relais.model import ServiceName

PROJECT = "project-1"
BEGIN = datetime(2025, 10, 9, 12, 0, tzinfo=UTC)


@pytest.fixture
def service() -> ServiceName:
    """A service of this test alone."""
    return ServiceName(project=PROJECT, region="europe-west1", name=f"app-{secrets.token_hex(4)}")


@pytest.fixture
def write(at_cloud: Any, service: ServiceName) -> Callable[..., None]:  # noqa: ARG001 - the endpoint has to be there
    """Write an entry as Cloud Run does, `seconds` after the beginning."""

    def entry(log: str, seconds: float, revision: str = "r1", **fields: Any) -> LogEntry:
        name = f"{service.name}-{revision}"
        labels = {"project_id": PROJECT, "location": service.region, "service_name": service.name, "revision_name": name}
        return LogEntry(
            log_name=f"projects/{PROJECT}/logs/{log}",
            resource={"type": "cloud_run_revision", "labels": labels},
            timestamp=BEGIN + timedelta(seconds=seconds),
            **fields,
        )

    def write(*entries: tuple[str, float, dict[str, Any]], **common: Any) -> None:
        made = [entry(log, seconds, **{**common, **fields}) for log, seconds, fields in entries]
        client_of(LoggingServiceV2Client).write_log_entries(entries=made, timeout=10)

    return write


STDOUT, STDERR, SYSTEM, REQUESTS = (f"run.googleapis.com%2F{log}" for log in ("stdout", "stderr", "varlog%2Fsystem", "requests"))


def test_the_lines_of_a_revision_come_in_order_with_what_cloud_run_remarked(write: Callable[..., None], service: ServiceName) -> None:
    write(
        (STDOUT, 2, {"text_payload": "Worker 0 started"}),
        (STDERR, 3, {"text_payload": "Traceback (most recent call last):", "severity": 500}),
        (SYSTEM, 1, {"text_payload": "Starting new instance.", "severity": 200}),
        (STDOUT, 4, {"json_payload": {"message": "failed", "exception": "ValueError: x", "code": 3}}),
        (STDOUT, 5, {"json_payload": {"event": "é", "n": 1}}),
        ("python", 6, {"text_payload": "by the logging library"}),
        (REQUESTS, 2.5, {"http_request": {"status": 200}}),
        (STDOUT, 2, {"text_payload": "of another revision", "revision": "r2"}),
    )
    lines = Logs(PROJECT).revision_lines(service, f"{service.name}-r1", BEGIN)
    assert [(line.kind, line.severity, line.text) for line in lines] == [
        ("system", "INFO", "Starting new instance."),
        ("stdout", "DEFAULT", "Worker 0 started"),
        ("stderr", "ERROR", "Traceback (most recent call last):"),
        ("stdout", "DEFAULT", "failed\nValueError: x"),
        ("stdout", "DEFAULT", '{"event": "é", "n": 1.0}'),
        ("python", "DEFAULT", "by the logging library"),
    ]
    assert lines[0].timestamp == BEGIN + timedelta(seconds=1)


def test_lines_from_before_and_beyond_the_limit_are_left_out(write: Callable[..., None], service: ServiceName) -> None:
    write(*[(STDOUT, n, {"text_payload": f"line {n}"}) for n in range(10)])
    lines = Logs(PROJECT).revision_lines(service, f"{service.name}-r1", BEGIN + timedelta(seconds=3), limit=4)
    assert [line.text for line in lines] == ["line 3", "line 4", "line 5", "line 6"]


def request(n: float, status: int = 200, **fields: Any) -> tuple[str, float, dict[str, Any]]:
    asked = {
        "request_method": "GET", "request_url": f"https://app-x-ew.a.run.app/api/{n}?q=1", "status": status, "user_agent": "curl/8",
        "latency": timedelta(milliseconds=250),
    }  # fmt: skip
    return REQUESTS, n, {"http_request": asked, **fields}


def test_the_requests_of_a_window_come_once_each_with_revision_status_and_latency(write: Callable[..., None], service: ServiceName) -> None:
    write(request(-1), request(0), request(1, 503, revision="r2"), request(10))
    found = Logs(PROJECT).requests(service, BEGIN, BEGIN + timedelta(seconds=10))
    assert [(line.revision.removeprefix(f"{service.name}-"), line.status, line.path) for line in found] == [
        ("r1", 200, "/api/0"), ("r2", 503, "/api/1"),
    ]  # fmt: skip
    assert (found[0].latency, found[0].method, found[0].agent) == (0.25, "GET", "curl/8")


def test_more_requests_than_a_page_holds_are_read_up_to_the_most_asked_for(write: Callable[..., None], service: ServiceName) -> None:
    for begin in range(0, 2400, 800):
        write(*[request(n / 100) for n in range(begin, begin + 800)])
    until = BEGIN + timedelta(minutes=1)
    found = Logs(PROJECT).requests(service, BEGIN, until)
    assert len(found) == len({line.insert_id for line in found}) == 2400
    assert [line.timestamp for line in found] == sorted(line.timestamp for line in found)
    assert len(Logs(PROJECT).requests(service, BEGIN, until, most=1500)) == 1500


def line(url: str) -> RequestLine:
    return RequestLine(BEGIN, "r1", 200, 0.1, "GET", url, "", "")


PLACES = [
    ("https://r-1---app-x-ew.a.run.app/", "https://app-x-ew.a.run.app", True),
    ("https://app-x-ew.a.run.app/a---b", "https://app-x-ew.a.run.app", False),
    ("https://app-1234.europe-west1.run.app/", "https://app-x-ew.a.run.app", False),
    ("http://app-x-ew.a.run.app/", "https://app-x-ew.a.run.app", False),
    ("http://www.example.com/", "https://app-x-ew.a.run.app", False),
    ("http://127.0.0.1:20001/api", "http://127.0.0.1:20000", True),
    ("http://localhost:20000/api", "http://127.0.0.1:20000", False),
    ("http://[", "http://127.0.0.1:20000", True),
    ("/", "", False),
]


@pytest.mark.parametrize(("url", "uri", "tagged"), PLACES)
def test_a_request_by_a_tags_url_is_told_from_one_by_the_services_own(url: str, uri: str, tagged: bool) -> None:
    assert line(url).tagged(uri) is tagged


def test_an_unreachable_log_is_an_outage_within_its_time(free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="request log of app"):
        Logs(PROJECT).requests(ServiceName(project=PROJECT, region="r", name="app"), BEGIN, BEGIN, within=1.0)
    assert time.monotonic() - begun < 5


# -- a real service on the real Engine --------------------------------------------------------------------------------------

APP = """
import http.server, os
print("Worker 0 started", flush=True)
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(500 if self.path == "/bad" else 200); self.send_header("content-length", "0"); self.end_headers()
http.server.ThreadingHTTPServer(("", int(os.environ["PORT"])), Page).serve_forever()
"""


@pytest.fixture
def deployed(
    at_cloud: Any, service: ServiceName, base_image: str, registry: str, engine: docker.DockerClient, tmp_path: Path  # noqa: ARG001
) -> Iterator[run_v2.Service]:
    """A public service of one revision that also has a tag."""
    image = f"{registry}/{PROJECT}/app/{service.name}:t1"
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "Dockerfile").write_text(f'FROM {base_image}\nCOPY app.py /app.py\nCMD ["python3", "-u", "/app.py"]\n')
    engine.images.build(path=str(tmp_path), tag=image, rm=True, forcerm=True)
    try:
        assert not [item for item in engine.images.push(image, stream=True, decode=True) if "error" in item]
        target = run_v2.TrafficTarget(type_=1, percent=100, tag="r-1")
        template = run_v2.RevisionTemplate(containers=[run_v2.Container(image=image)])
        body = run_v2.Service(template=template, traffic=[target], invoker_iam_disabled=True)
        client = client_of(run_v2.ServicesClient)
        yield client.create_service(parent=service.parent, service=body, service_id=service.name, timeout=15).result(timeout=60)
        client.delete_service(name=service.full, timeout=15).result(timeout=60)
    finally:
        engine.images.remove(image, force=True)


def test_what_a_real_revision_printed_and_answered_is_read(deployed: run_v2.Service, service: ServiceName) -> None:
    begin, revision = datetime.now(UTC) - timedelta(minutes=2), deployed.latest_ready_revision.rpartition("/")[2]
    tag = deployed.traffic_statuses[0].uri
    with httpx.Client(trust_env=False, timeout=10) as client:
        assert [client.get(url).status_code for url in (f"{deployed.uri}/a", f"{deployed.uri}/bad", f"{tag}/b")] == [200, 500, 200]
    logs, deadline = Logs(PROJECT), time.monotonic() + 10
    while len(found := logs.requests(service, begin, datetime.now(UTC))) < 3 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [(one.path, one.status, one.revision, one.tagged(deployed.uri)) for one in found] == [
        ("/a", 200, revision, False), ("/bad", 500, revision, False), ("/b", 200, revision, True),
    ]  # fmt: skip
    assert "Worker 0 started" in [one.text for one in logs.revision_lines(service, revision, begin)]
