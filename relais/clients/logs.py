"""Cloud Logging, read: what a revision wrote, and which requests a service answered.

https://cloud.google.com/run/docs/logging
"""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import urlsplit

from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.cloud.logging_v2.types import ListLogEntriesResponse
from google.protobuf import json_format

from relais.clients.endpoint import client_of, reading, translated
from relais.model import ServiceName

_PAGE: Final = 1000  # the most that one call gives
_READ: Final = 10.0  # seconds for one page
_SEVERITIES: Final = {
    0: "DEFAULT", 100: "DEBUG", 200: "INFO", 300: "NOTICE", 400: "WARNING", 500: "ERROR", 600: "CRITICAL", 700: "ALERT", 800: "EMERGENCY",
}  # fmt: skip
_to_dict: Final[Any] = json_format.MessageToDict
_TRACES: Final = ("exception", "stack_trace", "exc_info", "traceback")  # where structured loggers put what follows the message


@dataclass(frozen=True, slots=True)
class LogLine:
    """One entry that a revision, or Cloud Run on its behalf, wrote."""

    timestamp: datetime
    severity: str
    text: str
    kind: str  # stdout, stderr, system, or the log's own name
    insert_id: str = ""


@dataclass(frozen=True, slots=True)
class RequestLine:
    """One request that a revision answered."""

    timestamp: datetime  # of its start
    revision: str
    status: int
    latency: float  # seconds
    method: str
    url: str
    agent: str
    insert_id: str

    @property
    def path(self) -> str:
        try:
            return urlsplit(self.url).path
        except ValueError:
            return self.url

    def tagged(self, uri: str) -> bool:
        """Whether it came by a tag's URL rather than by the service's own, `uri`."""
        here, own = _place(self.url), _place(uri)
        return "---" in here[0].partition(".")[0] or (own[1] is not None and here[1] != own[1])


class Logs:
    """One project's logs."""

    def __init__(self, project: str) -> None:
        self._project = project
        self._client: Any = client_of(LoggingServiceV2Client)

    def revision_lines(self, service: ServiceName, revision: str, since: datetime, limit: int = 200) -> tuple[LogLine, ...]:
        """The first `limit` lines that a revision wrote since then, oldest first: its output, and Cloud Run's remarks on it."""
        wanted = (
            f'{_of(service)} AND resource.labels.revision_name="{revision}" '
            f'AND logName!="projects/{self._project}/logs/run.googleapis.com%2Frequests" AND timestamp>="{_stamp(since)}"'
        )
        found: list[LogLine] = []
        for entry in self._entries(wanted, limit, f"log of {revision}"):
            if text := _text(entry):
                severity = _SEVERITIES.get(entry.severity, str(entry.severity))
                found.append(LogLine(_when(entry), severity, text, _kind(entry), entry.insert_id))
        return tuple(found)

    def requests(
        self, service: ServiceName, since: datetime, until: datetime, *, most: int = 20_000, within: float = 20.0
    ) -> tuple[RequestLine, ...]:
        """The requests that a service's revisions began between two instants, oldest first, each once.

        An entry appears when its request has ended, seconds later: read a window again, overlapping, to have them all. Where there are more
        than `most`, or reading takes longer than `within` seconds, the later ones are missing for all revisions alike.
        """
        wanted = (
            f'{_of(service)} AND logName="projects/{self._project}/logs/run.googleapis.com%2Frequests" '
            f'AND timestamp>="{_stamp(since)}" AND timestamp<"{_stamp(until)}"'
        )
        found: dict[tuple[str, datetime], RequestLine] = {}
        for entry in self._entries(wanted, most, f"request log of {service}", within):
            request = entry.http_request
            line = RequestLine(
                timestamp=_when(entry),
                revision=entry.resource.labels.get("revision_name", ""),
                status=request.status,
                latency=request.latency.seconds + request.latency.nanos / 1e9,
                method=request.request_method,
                url=request.request_url,
                agent=request.user_agent,
                insert_id=entry.insert_id,
            )
            found.setdefault((line.insert_id, line.timestamp), line)
        return tuple(found.values())

    def _entries(self, wanted: str, most: int, where: str, within: float = _READ) -> Iterator[Any]:
        """The entries of a filter, page by page, as plain protobuf messages; after the first page time or number may end them."""
        deadline = time.monotonic() + within
        request = {
            "resource_names": [f"projects/{self._project}"], "filter": wanted, "order_by": "timestamp asc", "page_size": min(most, _PAGE),
        }  # fmt: skip
        left = most
        with translated(where, needs="roles/logging.viewer"):
            for page in self._client.list_log_entries(request=request, **reading(min(within, _READ))).pages:
                entries = ListLogEntriesResponse.pb(page).entries
                yield from entries[:left]
                left -= len(entries)
                if left <= 0 or time.monotonic() > deadline:
                    return


def _of(service: ServiceName) -> str:
    return (
        f'resource.type="cloud_run_revision" AND resource.labels.service_name="{service.name}" '
        f'AND resource.labels.location="{service.region}"'
    )


def _stamp(at: datetime) -> str:
    return f"{at.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def _when(entry: Any) -> datetime:
    at: datetime = entry.timestamp.ToDatetime(tzinfo=UTC)
    return at


def _kind(entry: Any) -> str:
    name: str = entry.log_name.rpartition("/logs/")[2]
    return name.rpartition("%2F")[2]


def _text(entry: Any) -> str:
    """What an entry says: its text, or of a structured one its message and the trace that goes with it."""
    if not entry.HasField("json_payload"):
        text: str = entry.text_payload
        return text
    payload = _to_dict(entry.json_payload)
    message = payload.get("message")
    if not isinstance(message, str):
        return json.dumps(payload, ensure_ascii=False, sort_keys=True)
    traces = (payload[key] for key in _TRACES if isinstance(payload.get(key), str))
    return "\n".join((message, *(trace for trace in traces if trace not in message)))


def _place(url: str) -> tuple[str, int | None]:
    """The host and, where it is written, the port; a local cloud's tags have ports of their own."""
    try:
        parts = urlsplit(url)
        return parts.hostname or "", parts.port
    except ValueError:
        return "", None
