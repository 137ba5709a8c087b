"""HTTP, asked of real servers: what answers, what is slow, what is not there."""

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from relais.clients.http import LIMIT, Http


class Handler(BaseHTTPRequestHandler):
    """Answers by path."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length", 0))
        sent = self.rfile.read(length)
        told = {"method": self.command, "headers": {k.lower(): v for k, v in self.headers.items()}, "body": sent.decode()}
        answers: dict[str, Callable[[], None]] = {
            "/echo": lambda: self.reply(200, json.dumps(told).encode()),
            "/missing": lambda: self.reply(404, b"nothing here"),
            "/moved": lambda: self.reply(302, b"", Location="/echo"),
            "/large": lambda: self.reply(200, b"x" * (LIMIT + 10)),
            "/latin": lambda: self.reply(200, b"caf\xe9"),
            "/never": self.never,
            "/cut": self.cut,
            "/endless": self.endless,
            "/drip": self.drip,
        }
        answers[self.path]()

    do_POST = do_GET

    def reply(self, status: int, body: bytes, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"X-Kind": "real", **headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def never(self) -> None:
        time.sleep(3)
        self.close_connection = True

    def cut(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "100")
        self.end_headers()
        self.wfile.write(b"only this")
        self.close_connection = True

    def drip(self) -> None:
        """A header that never ends, a byte at a time."""
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
            for _ in range(100):
                self.wfile.write(b"x")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def endless(self) -> None:
        self.send_response(200)
        self.end_headers()
        try:
            while True:
                self.wfile.write(b"data: tick\n\n")
                time.sleep(0.05)
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as served:
        served.daemon_threads = True
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def test_an_answer_has_status_headers_body_and_time(server: str) -> None:
    answer = Http().ask("GET", f"{server}/echo")
    assert (answer.status, answer.error, answer.cut) == (200, None, False)
    assert answer.headers["x-kind"] == "real"
    assert answer.json()["method"] == "GET"
    assert 0 < answer.seconds < 5


def test_what_is_sent_arrives(server: str) -> None:
    http = Http()
    told = http.ask("POST", f"{server}/echo", headers={"X-Word": "größe"}, json={"message": "Je préfère"}).json()
    assert (told["method"], json.loads(told["body"])) == ("POST", {"message": "Je préfère"})
    assert told["headers"]["content-type"] == "application/json"
    assert told["headers"]["x-word"].encode("latin-1").decode() == "größe"
    assert http.ask("POST", f"{server}/echo", body="plain text").json()["body"] == "plain text"


def test_a_refusal_of_the_server_is_an_answer(server: str) -> None:
    answer = Http().ask("GET", f"{server}/missing")
    assert (answer.status, answer.text, answer.error) == (404, "nothing here", None)
    with pytest.raises(ValueError, match="Expecting value"):
        answer.json()


def test_a_redirect_is_an_answer_and_is_not_followed(server: str) -> None:
    assert Http().ask("GET", f"{server}/moved").status == 302


def test_of_a_large_body_the_beginning_is_kept(server: str) -> None:
    answer = Http().ask("GET", f"{server}/large")
    assert (len(answer.body), answer.cut, answer.error) == (LIMIT, True, None)


def test_text_that_is_not_utf8_is_text_all_the_same(server: str) -> None:
    assert Http().ask("GET", f"{server}/latin").text == "caf\ufffd"


def test_a_server_that_is_not_there_is_an_answer_with_an_error(free_port: Callable[[], int]) -> None:
    answer = Http().ask("GET", f"http://127.0.0.1:{free_port()}/")
    assert (answer.status, answer.body) == (0, b"")
    assert answer.error is not None
    assert "refused" in answer.error


@pytest.mark.parametrize(
    ("path", "error"),
    [("/never", "no answer within 0.5 s"), ("/drip", "no answer within 0.5 s"), ("/endless", "the answer was not complete after 0.5 s")],
)
def test_no_answer_takes_longer_than_its_limit(server: str, path: str, error: str) -> None:
    begun = time.monotonic()
    answer = Http().ask("GET", f"{server}{path}", timeout=0.5)
    assert answer.error == error
    assert time.monotonic() - begun < 2


def test_an_answer_that_breaks_off_is_an_error(server: str) -> None:
    answer = Http().ask("GET", f"{server}/cut")
    assert answer.error is not None
    assert "closed" in answer.error


@pytest.mark.parametrize("url", ["nonsense", "http://", "http://[::1", "ftp://127.0.0.1/", "http://no-such-host.invalid/"])
def test_an_address_that_cannot_be_is_an_error_and_no_exception(url: str) -> None:
    answer = Http().ask("GET", url, timeout=5)
    assert answer.status == 0
    assert answer.error


def test_this_machine_is_reached_without_the_proxy_of_the_environment(
    server: str, monkeypatch: pytest.MonkeyPatch, free_port: Callable[[], int]
) -> None:
    proxy = f"http://127.0.0.1:{free_port()}"  # nobody listens there
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with Http() as http:
        assert http.ask("GET", f"{server}/echo").status == 200
        assert http.ask("GET", f"{server.replace('127.0.0.1', 'localhost')}/echo").status == 200
        assert "refused" in (http.ask("GET", "http://example.invalid/").error or "")
