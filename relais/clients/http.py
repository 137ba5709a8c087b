"""HTTP, asked: one request, one answer; a server that cannot be reached is an answer too, because the contract decides."""

import json
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import httpx

LIMIT: Final = 2_000_000  # bytes of a body that are kept
_CONNECT: Final = 10.0
_GRACE: Final = 0.2  # seconds after which a connection is cut that no bound of httpx has ended
_LOOPBACK: Final = ("all://127.0.0.1", "all://localhost", "all://*.localhost", "all://[::1]")


@dataclass(frozen=True)
class Answer:
    """What came back, or why nothing did; `status` is 0 where there was no answer."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)  # names in lower case
    body: bytes = b""
    seconds: float = 0.0
    error: str | None = None
    cut: bool = False  # the body was longer than what is kept

    @property
    def text(self) -> str:
        """The body as text; what is not UTF-8 is replaced."""
        return self.body.decode("utf-8", errors="replace")

    def json(self) -> Any:
        """The body as JSON; ValueError where it is none."""
        return json.loads(self.body)


class Http:
    """A client that follows no redirect, and reaches this machine without a proxy."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._client = httpx.Client(mounts=dict.fromkeys(_LOOPBACK), headers={"user-agent": "relais"})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        json: Any = None,
        body: str | bytes | None = None,
        timeout: float = 30.0,
    ) -> Answer:
        """Send one request and wait at most `timeout` seconds for the whole answer."""
        begun = time.monotonic()
        sent = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        content = body.encode() if isinstance(body, str) else body
        limits = httpx.Timeout(timeout, connect=min(timeout, _CONNECT))
        more: dict[str, Any] = {"trace": self._opened}
        try:
            with (
                self._deadline(timeout),
                self._client.stream(method, url, headers=sent, json=json, content=content, timeout=limits, extensions=more) as response,
            ):
                kept, cut, late = _read(response, begun + timeout)
                error = f"the answer was not complete after {timeout:g} s" if late else None
                return Answer(response.status_code, dict(response.headers), kept, _since(begun), error, cut)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as problem:
            late = time.monotonic() - begun >= timeout
            return Answer(0, seconds=_since(begun), error=f"no answer within {timeout:g} s" if late else _why(problem, timeout))

    def _opened(self, event: str, info: Mapping[str, Any]) -> None:
        """Remembers the sockets of this client (httpcore's trace extension)."""
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
            self._sockets.append(info["return_value"].get_extra_info("socket"))

    @contextmanager
    def _deadline(self, timeout: float) -> Iterator[None]:
        """Nothing outlasts `timeout`: httpx bounds each read, and a server that drips its headers would never end."""
        timer = threading.Timer(timeout + _GRACE, self._hang_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _hang_up(self) -> None:
        for opened in self._sockets:
            with suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)


def _read(response: httpx.Response, deadline: float) -> tuple[bytes, bool, bool]:
    """The body, at most LIMIT bytes of it and not beyond the deadline: an answer may be a stream without an end."""
    kept = bytearray()
    for chunk in response.iter_bytes():
        kept += chunk
        if len(kept) > LIMIT:
            return bytes(kept[:LIMIT]), True, False
        if time.monotonic() > deadline:
            return bytes(kept), False, True
    return bytes(kept), False, time.monotonic() > deadline


def _since(begun: float) -> float:
    return round(time.monotonic() - begun, 3)


def _why(problem: Exception, timeout: float) -> str:
    if isinstance(problem, httpx.ConnectTimeout):
        return f"no connection within {min(timeout, _CONNECT):g} s"
    if isinstance(problem, httpx.TimeoutException):
        return f"no answer within {timeout:g} s"
    if isinstance(problem, httpx.ConnectError):
        return f"no connection: {problem}"
    return str(problem) or type(problem).__name__
