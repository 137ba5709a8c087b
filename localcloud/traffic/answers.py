"""What the front end answers instead of a revision: status, body, and the remark of the request's log entry.

https://cloud.google.com/run/docs/troubleshooting#serving-errors; remarks from entries of real services; pages from issue reports, the 400,
404 and 413 pages and the bodies of 503 and 504 [approximated].
"""

import html
from collections.abc import Mapping
from dataclasses import dataclass, field

_HELP = "Additional troubleshooting documentation can be found at: https://cloud.google.com/run/docs/troubleshooting"
_READ = f"Read more at https://cloud.google.com/run/docs/securing/authenticating {_HELP}"
NO_INSTANCE = f"The request was aborted because there was no available instance. {_HELP}#abort-request"
TRUNCATED = (
    "Truncated response body. Usually implies that the request timed out or the application exited before the response was finished."
)
TOO_LARGE = "Response size was too large. Please consider reducing response size."


@dataclass(frozen=True)
class Answer:
    """One answer of the front end. `counted`: it is in the metrics, as most are."""

    status: int
    body: str
    remark: str = ""
    kind: str = "text/html"
    headers: Mapping[str, str] = field(default_factory=dict)
    counted: bool = True


def _page(status: int, title: str, text: str) -> str:
    return (
        '\n<html><head>\n<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
        f"<title>{status} {title}</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n"
        f"<h1>Error: {title}</h1>\n<h2>{text}</h2>\n<h2></h2>\n</body></html>\n"
    )


BAD_REQUEST = Answer(400, _page(400, "Bad Request", "Your client has issued a malformed or illegal request."))
NOT_FOUND = Answer(404, _page(404, "Page not found", "The requested URL was not found on this server."))
REQUEST_TOO_LARGE = Answer(413, _page(413, "Request Entity Too Large", "Your client issued a request that was too large."))
RESPONSE_TOO_LARGE = Answer(500, _page(500, "Server Error", "The server encountered an error and could not complete your request."))
FULL = Answer(429, "Rate exceeded.", NO_INSTANCE, "text/plain", counted=False)
NOT_STARTED = Answer(503, "Service Unavailable", "The request failed because the instance could not start successfully.", "text/plain")
UNAVAILABLE = Answer(503, "Service Unavailable", NO_INSTANCE, "text/plain")
BROKEN = Answer(
    503,
    "Service Unavailable",
    "The request failed because either the HTTP response was malformed or connection to the instance had an error. "
    f"{_HELP}#malformed-response-or-connection-error",
    "text/plain",
)
TOO_LONG = Answer(
    504,
    "upstream request timeout",
    "The request has been terminated because it has reached the maximum request timeout. To change this limit, see "
    "https://cloud.google.com/run/docs/configuring/request-timeout",
    "text/plain",
)


def unauthenticated(path: str) -> Answer:
    """The caller did not say who it is."""
    remark = f"The request was not authenticated. Either allow unauthenticated invocations or set the proper Authorization header. {_READ}"
    return _forbidden(path, f"{remark}#unauthorized-client")


def unauthorized(path: str) -> Answer:
    """The caller is known, and may not call this service."""
    return _forbidden(path, f"The request was not authorized to invoke this service. {_READ}#unauthorized-client")


def unverified(path: str) -> Answer:
    """The caller's token is none, is no longer one, or is for another service."""
    return Answer(
        401,
        _page(401, "Unauthorized", f"Your client does not have permission to the requested URL <code>{html.escape(path)}</code>."),
        f"The request was not authorized to invoke this service. The access token could not be verified. {_READ}#401",
        headers={"WWW-Authenticate": 'Bearer error="invalid_token" error_description="The access token could not be verified"'},
    )


def _forbidden(path: str, remark: str) -> Answer:
    text = f"Your client does not have permission to get URL <code>{html.escape(path)}</code> from this server."
    return Answer(403, _page(403, "Forbidden", text), remark, counted=False)
