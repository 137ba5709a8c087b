"""Keeps log entries in SQLite and serves them as Cloud Logging does (google.logging.v2.LoggingServiceV2).

https://cloud.google.com/logging/docs/reference/v2/rpc/google.logging.v2#loggingservicev2
"""

import asyncio
import re
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any, Final

import grpc
from google.api.monitored_resource_pb2 import MonitoredResource
from google.cloud.logging_v2 import types
from google.protobuf import any_pb2, empty_pb2
from google.rpc import status_pb2

from localcloud import clock
from localcloud.logs import entries
from localcloud.logs.logstore import BadQuery, LogStore
from localcloud.logs.logtail import tail
from localcloud.wire import Code, Context, Refusal, abort

__all__ = ["LogStore", "Logging"]

_ENTRY_BYTES: Final = 256 * 1024
_PAGE_SIZE: Final = 1000
_MOST_NAMES: Final = 100  # [ListLogEntriesRequest.resource_names]
_WINDOW_S: Final = 2.0  # [TailLogEntriesRequest.buffer_window]
_LONGEST_WINDOW_S: Final = 60
_MESSAGE_BYTES: Final = 3 * 2**20
_PIECE: Final = 10  # entries of 256 KB at most
_RATE_LIMIT: Final = types.TailLogEntriesResponse.SuppressionInfo.Reason.RATE_LIMIT
_PARENT: Final = re.compile(r"(projects|folders|organizations|billingAccounts)/[^/]+(/locations/[^/]+/buckets/[^/]+/views/[^/]+)?")
_LOG_NAME: Final = re.compile(r"(projects|folders|organizations|billingAccounts)/[^/]+/logs/[^/]{1,511}")
_Any: Final[Any] = any_pb2.Any  # type: ignore[attr-defined]  # generated modules have no types
_Empty: Final[Any] = empty_pb2.Empty  # type: ignore[attr-defined]
_Status: Final[Any] = status_pb2.Status


class Logging:
    """LoggingServiceV2 over a store; CopyLogEntries is not served."""

    def __init__(self, store: LogStore) -> None:
        self._store = store

    async def ListLogEntries(self, request: Any, _: Context) -> Any:
        wanted = types.ListLogEntriesRequest.pb(request)
        size = _page_size(wanted.page_size)
        parents = _parents(wanted.resource_names)
        page = await _ask(self._store.list, parents, wanted.filter, wanted.order_by, size, wanted.page_token)
        return types.ListLogEntriesResponse.pb()(entries=page.entries, next_page_token=page.next_page_token)

    async def WriteLogEntries(self, request: Any, ctx: Context) -> Any:
        wanted = types.WriteLogEntriesRequest.pb(request)
        bad: dict[int, str] = await _ask(self._write, wanted)
        if bad and not wanted.partial_success:
            index, reason = next(iter(bad.items()))
            raise Refusal(Code.INVALID_ARGUMENT, f"entries[{index}]: {reason} None of the {len(wanted.entries)} entries was written.")
        if bad:
            message = f"{len(bad)} of {len(wanted.entries)} entries were not written; the first: entries[{min(bad)}]: {bad[min(bad)]}"
            ctx.set_trailing_metadata((("grpc-status-details-bin", _partial_errors(message, bad)),))
            await abort(ctx, Code.INVALID_ARGUMENT, message)
        return types.WriteLogEntriesResponse()

    def _write(self, wanted: Any) -> dict[int, str]:
        """Write the entries of a request, or only the good ones where that is enough; gives what is wrong with the others."""
        received = entries.timestamp(clock.time_ns())
        good: list[Any] = []
        bad: dict[int, str] = {}
        for index, given in enumerate(wanted.entries):
            entry = _with_defaults(given, wanted, received)
            if reason := _fault(entry):
                bad[index] = reason
            else:
                good.append(entry)
        if not wanted.dry_run and (wanted.partial_success or not bad):
            self._store.write(good)
            self._store.flush()  # what is answered outlives the process
        return bad

    async def ListLogs(self, request: Any, _: Context) -> Any:
        size = _page_size(request.page_size)
        parents = _parents(request.resource_names or [request.parent])
        names = [name for name in await _ask(self._store.log_names, parents) if name > request.page_token]
        more = names[size - 1] if len(names) > size else ""
        return types.ListLogsResponse(log_names=names[:size], next_page_token=more)

    async def DeleteLog(self, request: Any, _: Context) -> Any:
        _refuse_unless(_LOG_NAME.fullmatch(request.log_name) is not None, f"Invalid log name: {request.log_name!r}.")
        if not await _ask(self._store.delete_log, request.log_name):
            raise Refusal(Code.NOT_FOUND, f"Log {request.log_name} does not exist.")
        return _Empty()

    async def TailLogEntries(self, requests: AsyncIterator[Any], _: Context) -> AsyncIterator[Any]:
        """What arrives from now on, for the first request of the stream; later requests change nothing [approximated]."""
        first = await anext(aiter(requests), None)
        _refuse_unless(first is not None, "A request with resource_names must be sent first.")
        wanted = types.TailLogEntriesRequest.pb(first)
        parents = _parents(wanted.resource_names)
        window = wanted.buffer_window.ToMilliseconds() / 1000 if wanted.HasField("buffer_window") else _WINDOW_S
        _refuse_unless(0 <= window <= _LONGEST_WINDOW_S, f"buffer_window is {window} s; it must be between 0 and {_LONGEST_WINDOW_S} s.")
        await _ask(self._store.after, 0, parents, wanted.filter)  # a filter that cannot be used is refused at once
        place = await _ask(self._store.newest)
        async for found, suppressed in tail(lambda after: _ask(self._store.after, after, parents, wanted.filter), place, window):
            answer = types.TailLogEntriesResponse.pb()(entries=found)
            if suppressed:
                answer.suppression_info.add(reason=_RATE_LIMIT, suppressed_count=suppressed)
            for part in _parts(answer):
                yield part


def _parts(answer: Any) -> Iterator[Any]:
    """The answer in pieces that fit into a message of gRPC."""
    if answer.ByteSize() <= _MESSAGE_BYTES or len(answer.entries) < 2:
        yield answer
        return
    for start in range(0, len(answer.entries), _PIECE):
        yield type(answer)(
            entries=answer.entries[start : start + _PIECE],
            suppression_info=answer.suppression_info if start == 0 else (),
        )


async def _ask(question: Callable[..., Any], *values: Any) -> Any:
    """Ask the store in a thread; what it cannot answer becomes the answer of the service."""
    try:
        return await asyncio.to_thread(question, *values)
    except BadQuery as error:
        raise Refusal(Code.INVALID_ARGUMENT, str(error)) from error
    except sqlite3.Error as error:
        raise Refusal(Code.UNAVAILABLE, f"The file of the log entries cannot be used ({error}). Is the disk full?") from error


def _parents(names: Iterable[str]) -> tuple[str, ...]:
    parents = tuple(names)
    _refuse_unless(len(parents) > 0, "At least one resource name is required: resource_names=['projects/PROJECT_ID'].")
    _refuse_unless(len(parents) <= _MOST_NAMES, f"There are {len(parents)} resource names; at most {_MOST_NAMES} are allowed.")
    for name in parents:
        _refuse_unless(_PARENT.fullmatch(name) is not None, f"Invalid resource name: {name!r}. Name a project: projects/PROJECT_ID.")
    return parents


def _refuse_unless(holds: bool, message: str) -> None:
    if not holds:
        raise Refusal(Code.INVALID_ARGUMENT, message)


def _page_size(wanted: int) -> int:
    _refuse_unless(0 <= wanted <= _PAGE_SIZE, f"page_size is {wanted}; it must be between 0 and {_PAGE_SIZE}.")
    return wanted or 50


def _with_defaults(given: Any, request: Any, received: Any) -> Any:
    """What a WriteLogEntriesRequest says once for all of its entries, and what the service fills in."""
    entry = entries.LogEntry()
    entry.CopyFrom(given)
    entry.log_name = entry.log_name or request.log_name
    if not entry.HasField("resource"):
        entry.resource.CopyFrom(request.resource if request.HasField("resource") else MonitoredResource(type="global"))
    for name, value in request.labels.items():
        if name not in entry.labels:
            entry.labels[name] = value
    if not entry.HasField("timestamp"):
        entry.timestamp.CopyFrom(received)
    entry.insert_id = entry.insert_id or entries.insert_id()
    entry.receive_timestamp.CopyFrom(received)
    return entry


def _fault(entry: Any) -> str:
    if not _LOG_NAME.fullmatch(entry.log_name):
        return f"The log name is {entry.log_name!r}; it must be projects/PROJECT_ID/logs/LOG_ID."
    try:
        entry.timestamp.ToJsonString()
    except ValueError:
        return f"The timestamp cannot be: {entry.timestamp.seconds} s and {entry.timestamp.nanos} ns are not within the years 1 to 9999."
    if (size := entry.ByteSize()) > _ENTRY_BYTES:
        return f"Log entry with size {size / 1024:.1f}K exceeds maximum size of 256.0K."
    return ""


def _partial_errors(message: str, bad: dict[int, str]) -> bytes:
    """Which entries were not written, as the detail of the status that partial_success ends with."""
    code = int(grpc.StatusCode.INVALID_ARGUMENT.value[0])
    detail = types.WriteLogEntriesPartialErrors.pb()()
    for index, reason in bad.items():
        detail.log_entry_errors[index].CopyFrom(_Status(code=code, message=reason))
    packed = _Any()
    packed.Pack(detail)
    return bytes(_Status(code=code, message=message, details=[packed]).SerializeToString())
