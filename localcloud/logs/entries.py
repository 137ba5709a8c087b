"""Log entries in the shapes that Cloud Run writes: one per request, one per line of output, and the system's own remarks."""

import calendar
import functools
import json
import math
import os
import re
import threading
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from google.api.monitored_resource_pb2 import MonitoredResource
from google.cloud.logging_v2.types import LogEntry as _LogEntry
from google.protobuf import json_format, timestamp_pb2

from localcloud import clock

LogEntry: Final[Any] = _LogEntry.pb()  # the protobuf class itself; the proto-plus wrapper is several times slower

_Timestamp: Final[Any] = timestamp_pb2.Timestamp  # type: ignore[attr-defined]  # generated modules have no types
_parse: Final[Any] = json_format.ParseDict

SEVERITIES: Final[Mapping[str, int]] = {
    "DEFAULT": 0, "DEBUG": 100, "INFO": 200, "NOTICE": 300, "WARNING": 400, "ERROR": 500, "CRITICAL": 600, "ALERT": 700, "EMERGENCY": 800,
}  # fmt: skip
_ALIASES: Final[Mapping[str, str]] = {
    "WARN": "WARNING", "ERR": "ERROR", "CRIT": "CRITICAL", "FATAL": "CRITICAL", "EMERG": "EMERGENCY", "TRACE": "DEBUG",
}  # fmt: skip
_RFC3339: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,9})\d*)?(?:([Zz])|([+-])(\d\d):?(\d\d))?)?", re.ASCII
)
_PREFIX: Final = "logging.googleapis.com/"
_NANO: Final = 1_000_000_000
_FIRST, _LAST = -62_135_596_800, 253_402_300_799  # the seconds that a timestamp may have [timestamp.proto]
_INT32: Final = 2**31 - 1

Moment = datetime | float | str
"""A point in time: an aware datetime, seconds since the epoch, or RFC 3339 text as the Docker Engine writes it."""


def nanoseconds(moment: Moment) -> int:
    """Nanoseconds since the epoch; ValueError if the text is no RFC 3339 time (the offset may lack its colon, the time may be absent)."""
    if isinstance(moment, datetime):
        return int(calendar.timegm(moment.utctimetuple())) * _NANO + moment.microsecond * 1000
    if isinstance(moment, (int, float)):
        return round(moment * 1_000_000) * 1000
    found = _RFC3339.fullmatch(moment.strip())
    if not found:
        raise ValueError(f"{moment!r} is not an RFC 3339 time such as 2025-10-09T08:30:00Z")
    year, month, day, hour, minute, second, fraction, _, sign, off_hours, off_minutes = found.groups()
    offset = (int(off_hours) * 3600 + int(off_minutes) * 60) * (-1 if sign == "-" else 1) if sign else 0
    parts = (int(year), int(month), int(day), int(hour or 0), int(minute or 0), min(int(second or 0), 59))
    datetime(*parts)  # a 13th month is refused here, where timegm would carry it over
    return (calendar.timegm((*parts, 0, 0, 0)) - offset) * _NANO + int((fraction or "0").ljust(9, "0"))


def timestamp(nanos: int) -> Any:
    """The protobuf message; ValueError outside of the years 1 to 9999, which no client could read."""
    if not _FIRST <= nanos // _NANO <= _LAST:
        raise ValueError(f"{nanos} ns is not between the years 1 and 9999")
    return _Timestamp(seconds=nanos // _NANO, nanos=nanos % _NANO)


class _InsertIds:
    """Identifiers that are unique, and sorted as they were given out (ties of one timestamp keep the order of the lines)."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last = 0
        self._maker = os.urandom(3).hex()

    def __call__(self) -> str:
        with self._lock:
            self._last = max(self._last + 1, clock.time_ns())
            return f"{self._last:016x}{self._maker}"


insert_id: Final = _InsertIds()


def severity_number(name: object) -> int | None:
    """The number of a severity given by name (any case, common short forms) or number; None if it is neither."""
    if isinstance(name, (int, float)) and not isinstance(name, bool):
        return int(name)
    text = str(name).strip().upper()
    return SEVERITIES.get(_ALIASES.get(text, text))


@functools.lru_cache(maxsize=2000)
def _blank(project: str, region: str, service: str, revision: str, log: str) -> Any:
    entry = LogEntry(log_name=f"projects/{project}/logs/run.googleapis.com%2F{log}")
    labels = {
        "project_id": project, "location": region, "service_name": service, "revision_name": revision, "configuration_name": service,
    }  # fmt: skip
    entry.resource.CopyFrom(MonitoredResource(type="cloud_run_revision", labels=labels))
    return entry


def _entry(project: str, region: str, service: str, revision: str, instance: str, log: str, stamp: int) -> Any:
    entry = LogEntry()
    entry.CopyFrom(_blank(project, region, service, revision, log))
    entry.insert_id = insert_id()
    entry.timestamp.CopyFrom(timestamp(stamp))
    if instance:
        entry.labels["instanceId"] = instance
    entry.receive_timestamp.CopyFrom(entry.timestamp)
    return entry


def request_entry(
    project: str, region: str, service: str, revision: str, instance: str, *,
    method: str, url: str, status: int, request_size: int, response_size: int, user_agent: str, remote_ip: str,
    latency_s: float, protocol: str, trace: str, start_ts: Moment, labels: Mapping[str, str] | None = None,
    referer: str = "", server_ip: str = "", span: str = "", sampled: bool = False, remark: str = "",
) -> Any:  # fmt: skip
    """The entry of the request log; it is written when the request has ended and bears the time of its start.

    `trace` is the 32 hexadecimal digits alone; `remark` is what the front end says of a request
    that it ended itself. Severity: INFO below 400, WARNING for 4xx, ERROR for 5xx.
    """
    start = nanoseconds(start_ts)
    entry = _entry(project, region, service, revision, instance, "requests", start)
    entry.severity = 500 if status >= 500 else 400 if status >= 400 else 200
    entry.labels.update(labels or {})
    if trace:
        entry.trace = f"projects/{project}/traces/{trace}"
    spent = max(0, round(latency_s * _NANO))
    request = entry.http_request
    request.request_method, request.request_url, request.status = method, url, status
    request.request_size, request.response_size = request_size, response_size
    request.user_agent, request.referer = _readable(user_agent), _readable(referer)
    request.server_ip = server_ip
    request.remote_ip, request.protocol = remote_ip, protocol
    request.latency.seconds, request.latency.nanos = divmod(spent, _NANO)
    entry.receive_timestamp.CopyFrom(timestamp(start + spent))
    entry.span_id, entry.trace_sampled = span, sampled
    if remark:
        entry.text_payload = remark
    return entry


def _readable(header: str) -> str:
    return header.encode("utf-8", "replace").decode()  # it may have arrived in another encoding


def line_entry(
    project: str, region: str, service: str, revision: str, instance: str, stream: str, line: str, timestamp: Moment
) -> Any:
    """The entry of one line of stdout or stderr (https://cloud.google.com/run/docs/logging#special-fields).

    A line that is a JSON object becomes jsonPayload with its special fields lifted out (only a message left: textPayload);
    any other line is textPayload of severity DEFAULT. `receive_timestamp` keeps the time the Engine gave the line.
    """
    entry = _entry(project, region, service, revision, instance, stream, nanoseconds(timestamp))
    line = line.rstrip("\r\n").encode("utf-8", "replace").decode("utf-8")
    payload = _json_object(line)
    if payload is None:
        entry.text_payload = line
        return entry
    _lift(entry, project, payload)
    if set(payload) == {"message"} and isinstance(payload["message"], str):
        entry.text_payload = payload["message"]
    else:
        _parse(payload, entry.json_payload)
    return entry


def system_entry(
    project: str, region: str, service: str, revision: str, instance: str, severity: str, text: str, timestamp: Moment
) -> Any:
    """A remark of Cloud Run itself (varlog/system): probes, exits, memory limits, the start of an instance."""
    entry = _entry(project, region, service, revision, instance, "varlog%2Fsystem", nanoseconds(timestamp))
    entry.severity = SEVERITIES[severity]
    entry.text_payload = text
    return entry


def _json_object(line: str) -> dict[str, Any] | None:
    if not line.lstrip().startswith("{"):
        return None
    try:
        found = json.loads(line, parse_constant=_finite, parse_float=_finite)
        _parse(found, LogEntry().json_payload)  # bottomless nesting and half surrogate pairs are text, not a Struct
    except (ValueError, OverflowError, RecursionError, json_format.ParseError):
        return None
    return found if isinstance(found, dict) else None


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{text} has no place in JSON")
    return number


def _lift(entry: Any, project: str, payload: dict[str, Any]) -> None:
    """Moves the special fields out of the payload into the entry; one of the wrong shape stays where it is."""
    if (number := severity_number(payload.get("severity", ""))) is not None and 0 <= number <= _INT32:
        entry.severity = number
        del payload["severity"]
    if isinstance(payload.get("httpRequest"), dict):
        _lift_message(entry.http_request, payload, "httpRequest")
    _lift_time(entry, payload)
    for key, field in (("trace", "trace"), ("spanId", "span_id"), ("insertId", "insert_id")):
        if isinstance(payload.get(_PREFIX + key), str) and payload[_PREFIX + key]:
            setattr(entry, field, payload.pop(_PREFIX + key))
    if re.fullmatch("[0-9a-f]{32}", entry.trace):
        entry.trace = f"projects/{project}/traces/{entry.trace}"
    if isinstance(payload.get(_PREFIX + "trace_sampled"), bool):
        entry.trace_sampled = payload.pop(_PREFIX + "trace_sampled")
    if isinstance(labels := payload.get(_PREFIX + "labels"), dict):
        entry.labels.update({name: value if isinstance(value, str) else json.dumps(value) for name, value in labels.items()})
        del payload[_PREFIX + "labels"]
    for key, message in (("operation", "operation"), ("sourceLocation", "source_location")):
        if isinstance(payload.get(_PREFIX + key), dict):
            _lift_message(getattr(entry, message), payload, _PREFIX + key)


def _lift_message(target: Any, payload: dict[str, Any], key: str) -> None:
    try:
        target.CopyFrom(_parse(payload[key], type(target)(), ignore_unknown_fields=True))
        del payload[key]
    except json_format.ParseError:
        return


def _lift_time(entry: Any, payload: dict[str, Any]) -> None:
    for key in ("time", "timestamp"):
        value = payload.get(key)
        try:
            if isinstance(value, str):
                nanos = nanoseconds(value)
            elif isinstance(value, dict):
                nanos = int(value["seconds"]) * _NANO + int(value.get("nanos", 0))
            else:
                continue
            entry.timestamp.CopyFrom(timestamp(nanos))
        except (ValueError, KeyError, TypeError):
            continue
        del payload[key]
        return
