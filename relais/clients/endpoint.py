"""The one seam to Google's API: which server every client talks to, and where its errors become ours."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import grpc
from google.api_core import exceptions as google
from google.api_core import retry
from google.auth import exceptions as auth

from relais.config import emulator_host
from relais.errors import Conflict, Denied, Missing, RelaisError, Unavailable

LOGIN: Final = "run `gcloud auth application-default login`, or set CLOUDRUN_EMULATOR_HOST to a local cloud's host:port"
_OPTIONS: Final = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # a server that was restarted is found again at once; a peer that is gone is noticed within a call
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
)
_lock: Final = threading.Lock()
_channels: Final[dict[str, grpc.Channel]] = {}
_clients: Final[dict[tuple[type, str | None], Any]] = {}


def client_of(kind: Any) -> Any:
    """The process's one client of this kind, for the endpoint in force: the local cloud's, or Google's with default credentials."""
    host = emulator_host()
    with _lock:
        if (kind, host) not in _clients:
            with translated(kind.__name__):
                _clients[kind, host] = kind(**transport_for(kind))
        return _clients[kind, host]


def transport_for(kind: Any) -> dict[str, Any]:
    """The arguments that make a client of this kind talk to the endpoint in force."""
    host = emulator_host()
    return {"transport": kind.get_transport_class("grpc")(channel=_channel(host))} if host else {}


def _channel(host: str) -> grpc.Channel:
    """One plaintext channel for all the clients of a local cloud; channels may be shared between threads."""
    return _channels.setdefault(host, grpc.insecure_channel(host, options=_OPTIONS))


@contextmanager
def translated(where: str, needs: str = "") -> Iterator[None]:
    """Google's errors become ours; `where` names what was being talked to or about, `needs` the role that this takes."""
    try:
        yield
    except (google.GoogleAPIError, auth.GoogleAuthError) as error:
        raise ours(error, where, needs) from error


def reading(seconds: float = 10.0) -> dict[str, Any]:
    """The arguments of a read: asked again while the other side is away, and no longer than this in all."""
    again = retry.if_exception_type(google.ServiceUnavailable)
    return {"retry": retry.Retry(predicate=again, initial=0.2, maximum=2.0, timeout=seconds), "timeout": seconds}


def ours(error: Exception, where: str, needs: str = "") -> RelaisError:
    """The error of our tree that says the same: an outage, a conflict, something missing, or a refusal."""
    text = _sentence(error)
    if isinstance(error, auth.GoogleAuthError):
        outage = isinstance(error, auth.TransportError) or getattr(error, "retryable", False)
        return Unavailable(text, where=where) if outage else Denied(text, where=where, remedy=LOGIN)
    for kinds, make in _TREE:
        if isinstance(error, kinds):
            kind = Denied if make is Unavailable and _LOGGED_OUT.search(text) else make
            return kind(text, where=where, remedy=_remedy(kind, error, text, needs))
    return Denied(text, where=where, remedy=_remedy(Denied, error, text, needs))


# https://cloud.google.com/apis/design/errors#handling_errors; AlreadyExists is a kind of the client library's Conflict.
_TREE: Final[tuple[tuple[tuple[type[Exception], ...], type[RelaisError]], ...]] = (
    ((google.AlreadyExists, google.MethodNotImplemented), Denied),
    ((google.Conflict,), Conflict),
    ((google.NotFound,), Missing),
    ((google.ServerError, google.TooManyRequests, google.RetryError, google.Cancelled), Unavailable),
    ((google.GoogleAPIError,), Denied),
)
_LOGGED_OUT: Final = re.compile(r"Reauthentication is needed|invalid_grant|RefreshError", re.IGNORECASE)
_HINTS: Final[tuple[tuple[re.Pattern[str], str], ...]] = (
    (_LOGGED_OUT, LOGIN),
    (
        re.compile(r"(?:API|Api) has not been used in project (?P<project>\S+) before or it is disabled|SERVICE_DISABLED"),
        "enable the API, wait a minute, then release again",
    ),
    (
        re.compile(r"iam\.service[aA]ccounts\.actAs.*service account (?P<account>[\w.@-]+)", re.DOTALL),
        "grant whoever releases roles/iam.serviceAccountUser on {account}",
    ),
    (re.compile(r"[Pp]ermission ['\"]?(?P<permission>[a-z]+\.[A-Za-z.]+)['\"]? denied"), "grant whoever releases a role with {permission}"),
    (re.compile(r"[Qq]uota exceeded"), "wait a minute, or ask for a higher quota"),
)


def _remedy(kind: type[RelaisError], error: Exception, text: str, needs: str) -> str:
    for pattern, remedy in _HINTS:
        if found := pattern.search(text):
            return remedy.format_map(found.groupdict())
    if isinstance(error, google.Unauthorized):
        return LOGIN
    if isinstance(error, google.Forbidden):
        return f"grant whoever releases {needs or 'the role that this call needs'}"
    if kind is Conflict:
        return "somebody else changed it at the same moment, and nothing of ours was applied: look at who, then try again"
    if kind is Unavailable and (host := emulator_host()):
        return f"see that a local cloud answers at {host}: `make up` starts it"
    return ""


def _sentence(error: Exception) -> str:
    """What an error says, in one paragraph of reasonable length, without addresses of sockets and stack frames."""
    if isinstance(error, google.RetryError) and error.cause is not None:
        return f"no answer in time ({_sentence(error.cause)})"
    text = str(getattr(error, "message", "") or error or type(error).__name__)
    if "failed to connect to all addresses" in text:
        return "nobody answers: " + text.rpartition("last error: ")[2][:200]
    return text.strip()[:2000]
