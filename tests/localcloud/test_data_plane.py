"""The way of a request in every form that HTTP/1.1 has, and what is told of requests that go wrong."""

import datetime
import hashlib
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from clouds import Cloud, eventually
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

MIB = 2**20


@pytest.fixture(scope="module")
def plane(cloud: Cloud) -> str:
    return cloud.create("plane", env={"SAY": "hallo"}).uri


def logged(cloud: Cloud, service: str, path: str, many: int = 1) -> list[Any]:
    return eventually(lambda: len(found := cloud.entries("requests", service, f'httpRequest.requestUrl:"{path}"')) >= many and found)


def line_to(url: str) -> socket.socket:
    parts = httpx.URL(url)
    return socket.create_connection((parts.host, parts.port or 80), timeout=10)


def spoken(url: str, words: bytes) -> bytes:
    """All that a service answers to these bytes, until it hangs up."""
    with line_to(url) as line:
        line.sendall(words)
        return b"".join(iter(lambda: line.recv(65536), b""))


def test_an_answer_begins_before_the_request_has_ended(plane: str) -> None:
    with line_to(plane) as line, line.makefile("rb") as answer:
        line.sendall(b"POST /duplex HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        head = b""
        for part in (b"one", b"two", b"three"):
            line.sendall(b"%x\r\n%s\r\n" % (len(part), part))
            while not head.endswith(b"\r\n\r\n"):
                head += answer.readline()
            assert answer.readline() + answer.readline() == b"%x\r\n%s\r\n" % (len(part), part)
        line.sendall(b"0\r\n\r\n")
        assert answer.readline() + answer.readline() == b"0\r\n\r\n"


def test_head_and_options_go_through(plane: str) -> None:
    answer = httpx.head(plane)
    assert (answer.status_code, answer.headers["content-length"], answer.content) == (200, "12345", b"")
    assert httpx.options(plane).text == "options"


def test_one_connection_carries_many_requests_also_sent_ahead(plane: str) -> None:
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    seen = spoken(plane, request * 3 + request.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert (seen.count(b"HTTP/1.1 200 OK"), seen.count(b"\r\n\r\nhallo")) == (4, 4)


def test_a_client_of_http_1_0_is_answered(plane: str) -> None:
    seen = spoken(plane, b"GET / HTTP/1.0\r\n\r\n")
    assert seen.split(b"\r\n")[0].endswith(b" 200 OK")
    assert seen.endswith(b"hallo")


def test_requests_without_a_path_of_their_own_are_answered_and_logged_with_a_sane_url(cloud: Cloud) -> None:
    uri = cloud.create("odd", env={"SAY": "hallo"}).uri
    end = b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    assert b" 400 " in spoken(uri, b"CONNECT example.com:443" + end).split(b"\r\n")[0]
    assert b" 400 " in spoken(uri, b"OPTIONS *" + end).split(b"\r\n")[0]
    assert spoken(uri, b"GET http://example.com/there?x=1" + end).endswith(b"hallo")
    found = logged(cloud, "odd", uri, 3)
    assert [(each.http_request.status, each.http_request.request_url.removeprefix(uri)) for each in found] == [
        (400, "/"), (400, "/"), (200, "/there?x=1"),
    ]  # fmt: skip


def test_headers_that_are_too_big_or_no_headers_are_refused_in_one_line_and_nobody_else_notices(cloud: Cloud, plane: str) -> None:
    for head in (b"X: " + b"x" * 70_000, b"no header", b"Content-Length: 3\r\nTransfer-Encoding: chunked"):
        assert b" 400 " in spoken(plane, b"GET / HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n").split(b"\r\n")[0], head[:40]
    assert httpx.get(plane, headers={"X": "x" * 30_000}).text == "hallo"
    told = cloud.own_log()
    assert (told.count("; the answer was 400: "), told.count("Traceback")) == (3, 0)


def test_the_instance_learns_who_asked_and_how(plane: str) -> None:
    given = [("X-Forwarded-For", "10.1.2.3"), ("X-Forwarded-For", "10.1.2.4"), ("Forwarded", "for=evil")]
    seen = httpx.Headers(httpx.get(plane + "/headers", headers=given).json())
    assert seen["x-forwarded-for"] == "10.1.2.3, 10.1.2.4, 127.0.0.1"
    assert seen["forwarded"] == 'for="127.0.0.1";proto=http'


def test_a_request_over_32_mib_is_refused_with_a_length_or_in_chunks(cloud: Cloud, plane: str) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(33):
            yield bytes(MIB)

    assert httpx.post(plane + "/whole", content=bytes(33 * MIB), timeout=30).status_code == 413
    assert httpx.post(plane + "/chunks", content=chunks(), timeout=30).status_code == 413
    assert httpx.post(plane + "/fits", content=bytes(32 * MIB), timeout=30).text == hashlib.sha256(bytes(32 * MIB)).hexdigest()
    assert logged(cloud, "plane", "/whole")[0].http_request.status == 413
    assert logged(cloud, "plane", "/chunks")[0].http_request.status == 413


def test_an_answer_over_32_mib_is_refused_unless_it_comes_in_chunks(cloud: Cloud, plane: str) -> None:
    assert httpx.get(plane + "/big?mib=33", timeout=30).status_code == 500
    assert len(httpx.get(plane + "/big?mib=33&how=chunks", timeout=30).content) == 33 * MIB
    assert eventually(lambda: cloud.entries("varlog/system", "plane", '"Response size was too large"'))


def test_early_hints_are_left_out_and_the_answer_comes(plane: str) -> None:
    assert httpx.get(plane + "/raw?early=1").text == "hallo"


def test_an_answer_that_is_no_http_is_503_with_the_reason_in_the_log(cloud: Cloud, plane: str) -> None:
    assert httpx.get(plane + "/raw").status_code == 503
    assert "the answer is malformed: Bad status line\n" in cloud.own_log()
    (entry,) = logged(cloud, "plane", "/raw")[-1:]
    assert entry.severity == 500
    assert entry.text_payload.startswith("The request failed because either the HTTP response was malformed or connection to the instance")


def test_an_instance_that_dies_in_the_middle_of_its_answer_breaks_it_off(cloud: Cloud) -> None:
    made = cloud.create("dying")
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(made.uri + "/die", timeout=10)
    (entry,) = logged(cloud, "dying", "/die")
    assert (entry.http_request.status, entry.severity) == (503, 500)
    assert eventually(lambda: cloud.entries("varlog/system", "dying", '"Truncated response body"'))
    assert httpx.get(made.uri, timeout=20).status_code == 200


@pytest.mark.parametrize("asked", [{"method": "GET"}, {"method": "GET", "content": b"x"}], ids=["without a body", "with a body"])
def test_an_answer_that_is_malformed_in_the_middle_is_broken_off_at_once(cloud: Cloud, plane: str, asked: dict[str, Any]) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.request(url=plane + "/nochunk", timeout=10, **asked)
    assert logged(cloud, "plane", "/nochunk")[-1].http_request.status == 503


def test_what_an_instance_says_after_its_answer_is_not_the_answer_to_the_next_request(cloud: Cloud) -> None:
    uri = cloud.create("more", env={"SAY": "hallo"}).uri
    for _ in range(3):
        assert httpx.get(uri + "/more").text == "mine"
        time.sleep(0.2)
        assert httpx.get(uri).text == "hallo"


def test_who_asks_for_a_websocket_in_half_is_answered_as_anybody(plane: str) -> None:
    assert httpx.get(plane, headers={"Upgrade": "websocket"}).text == "hallo"


def test_a_websocket_message_that_does_not_end_is_not_kept(cloud: Cloud, plane: str) -> None:
    with connect(plane.replace("http", "ws") + "/endless", compression=None) as connected:
        connected.socket.sendall(b"\x82\xff" + (33 * MIB).to_bytes(8, "big") + b"mask" + bytes(MIB))
        with pytest.raises(ConnectionClosed):
            connected.recv(timeout=10)
    assert logged(cloud, "plane", "/endless")


def test_a_client_that_hangs_up_while_it_waits_is_499_and_the_instance_goes_on(cloud: Cloud, plane: str) -> None:
    with pytest.raises(httpx.ReadTimeout):
        httpx.get(plane + "/sleep?s=1&leave", timeout=0.3)
    (entry,) = logged(cloud, "plane", "/sleep?s=1")
    assert (entry.http_request.status, entry.severity) == (499, 400)
    assert entry.http_request.latency.seconds >= 1  # with HTTP/1 the instance is not told [troubleshooting]


def test_a_websocket_ends_at_the_time_limit_of_requests(cloud: Cloud) -> None:
    made = cloud.create("limited", template={"timeout": datetime.timedelta(seconds=1)})
    with connect(made.uri.replace("http", "ws") + "/ws", compression=None) as connected:
        began = time.monotonic()
        with pytest.raises(ConnectionClosed):
            connected.recv(timeout=5)
        assert time.monotonic() - began > 0.5
    (entry,) = logged(cloud, "limited", "/ws")
    assert (entry.http_request.status, "maximum request timeout" in entry.text_payload) == (504, True)


def test_a_retry_on_a_connection_that_the_instance_had_closed_is_nobodys_business(cloud: Cloud) -> None:
    made = cloud.create("closing", env={"SAY": "hallo"})
    for _ in range(3):
        assert httpx.get(made.uri + "/raw", timeout=10).status_code == 503  # the instance's connection is of no use any more
        assert httpx.get(made.uri, timeout=10).text == "hallo"
