"""A bounded store of log entries in one SQLite file: quick to write, read in pages by a compiled filter."""

import base64
import contextlib
import hashlib
import json
import logging
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from localcloud import entries as shapes
from localcloud import logfilter

_log = logging.getLogger(__name__)

_SCHEMA: Final = """
PRAGMA journal_mode = WAL;
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, log_name TEXT COLLATE NOCASE NOT NULL, insert_id TEXT NOT NULL, timestamp INTEGER NOT NULL,
    received INTEGER NOT NULL, severity INTEGER NOT NULL, resource_type TEXT COLLATE NOCASE, location TEXT COLLATE NOCASE,
    service TEXT COLLATE NOCASE, revision TEXT COLLATE NOCASE, instance TEXT, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS once ON entries (timestamp, insert_id, log_name);
CREATE INDEX IF NOT EXISTS by_service ON entries (service, timestamp, insert_id, log_name);
CREATE INDEX IF NOT EXISTS by_revision ON entries (service, revision, timestamp, insert_id, log_name);
"""
_INSERT: Final = (
    "INSERT OR IGNORE INTO entries (log_name, insert_id, timestamp, received, severity, resource_type, location, service,"
    " revision, instance, body) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
)
_FLUSH_SECONDS: Final = 0.05
_BUFFERED: Final = 20_000  # beyond it a writer flushes itself, and entries that the disk refuses are lost, oldest first
_PAGE_BYTES: Final = 3 * 2**20  # gRPC refuses messages over 4 MiB, unless told otherwise
_NANO: Final = 1_000_000_000
_INT64: Final = 2**63 - 1
Row = tuple[str, str, int, int, int, str, str, str, str, str, bytes]


class BadQuery(ValueError):
    """A filter, an order or a page token that cannot be used; the message says why."""


@dataclass(frozen=True)
class Page:
    entries: list[Any]
    next_page_token: str


class LogStore:
    """Entries of all services of one local cloud.

    `write` only appends to memory; a thread commits every 50 ms, and every reader commits first, so that what was written is
    read. The file is in WAL mode: a killed process loses at most its last 50 ms and never the file. Beyond `max_rows` or
    `max_bytes` the oldest entries go.
    """

    def __init__(self, path: Path, max_rows: int = 200_000, max_bytes: int = 256 * 2**20) -> None:
        self._path = path
        self._max_rows, self._max_bytes = max_rows, max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._buffer: list[Row] = []
        self._buffer_lock = threading.Lock()
        self._writer_lock = threading.Lock()
        self._pending = threading.Event()
        self._closed = threading.Event()
        self._writer = self._connect()
        with self._writer:
            self._writer.executescript(_SCHEMA)
        self._rows, self._bytes = self._writer.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM entries").fetchone()
        self._thread = threading.Thread(target=self._flush_regularly, name="log-store", daemon=True)
        self._thread.start()

    def write(self, entries: Iterable[Any]) -> None:
        """Keep these LogEntry messages (protobuf); one already there with the same log, timestamp and insert_id is dropped."""
        rows = [_row(entry) for entry in entries]
        with self._buffer_lock:
            self._buffer.extend(rows)
            full = len(self._buffer) > _BUFFERED
        self._pending.set()
        if full:
            with contextlib.suppress(sqlite3.Error):  # the thread reports it
                self.flush()

    def flush(self) -> None:
        """Commit what is in memory; sqlite3.Error if the disk refuses, and then it stays in memory."""
        with self._writer_lock:
            with self._buffer_lock:
                rows, self._buffer = self._buffer, []
            if not rows:
                return
            try:
                with self._writer:
                    before = self._writer.total_changes
                    self._writer.executemany(_INSERT, rows)
                    added = self._writer.total_changes - before
                    mean = sum(len(row[-1]) for row in rows) / len(rows)
                    self._trim(self._rows + added, self._bytes + int(mean * added))
            except sqlite3.Error:
                with self._buffer_lock:
                    self._buffer = (rows + self._buffer)[-_BUFFERED:]
                raise

    def list(
        self, resource_names: Sequence[str], filter: str = "", order_by: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page:
        """One page of the entries of these projects that the filter lets through, by timestamp and then insert_id; else BadQuery."""
        try:
            chosen = logfilter.compile(filter)
        except logfilter.BadFilter as error:
            raise BadQuery(str(error)) from error
        newest_first = _newest_first(order_by)
        self.flush()
        where, values = _conditions(resource_names, chosen)
        request = hashlib.sha256(repr((sorted(resource_names), filter, newest_first)).encode()).hexdigest()[:16]
        if page_token:
            where.append(f"(timestamp, insert_id, log_name) {'<' if newest_first else '>'} (?, ?, ?)")
            values.extend(_read_token(page_token, request))
        order = ", ".join(f"{column} {'DESC' if newest_first else 'ASC'}" for column in ("timestamp", "insert_id", "log_name"))
        found: list[Any] = []
        weight = 0
        with self._reading() as reader:
            for *_, body in reader.execute(f"SELECT body FROM entries WHERE {' AND '.join(where)} ORDER BY {order}", values):
                entry = shapes.LogEntry.FromString(body)
                if not chosen(entry):
                    continue
                weight += len(body)
                if found and (len(found) == page_size or weight > _PAGE_BYTES):
                    return Page(found, _token(found[-1], request))
                found.append(entry)
        return Page(found, "")

    def log_names(self, parents: Sequence[str]) -> Sequence[str]:
        """The names of the logs that have entries, sorted."""
        self.flush()
        with self._reading() as reader:
            names = [name for (name,) in reader.execute("SELECT DISTINCT log_name FROM entries ORDER BY log_name")]
        return [name for name in names if any(name.startswith(f"{_project(parent)}/logs/") for parent in parents)]

    def delete_log(self, log_name: str) -> bool:
        """Delete all entries of a log; False if it had none."""
        self.flush()
        with self._writer_lock, self._writer:
            gone = self._writer.execute("DELETE FROM entries WHERE log_name = ?", (log_name,)).rowcount
            self._count()
        return gone > 0

    def close(self) -> None:
        """Commit the rest and let go of the file."""
        self._closed.set()
        self._pending.set()
        self._thread.join(timeout=5)
        try:
            self.flush()
        except sqlite3.Error as error:
            _log.error("The last %d log entries are lost: %s refuses them (%s).", len(self._buffer), self._path, error)
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(self._connect()) as connection:
            yield connection

    def _flush_regularly(self) -> None:
        while not self._closed.is_set():
            self._pending.wait()
            self._pending.clear()
            self._closed.wait(_FLUSH_SECONDS)
            try:
                self.flush()
            except sqlite3.Error as error:
                _log.error("Log entries cannot be written to %s (%s); they are kept in memory. Is the disk full?", self._path, error)
                self._closed.wait(5)
                self._pending.set()

    def _trim(self, rows: int, size: int) -> None:
        """Delete the oldest twentieth as long as there is too much; runs inside the transaction of a flush."""
        self._rows, self._bytes = rows, size
        while self._rows > self._max_rows or (self._bytes > self._max_bytes and self._rows > 1):
            surplus = max(self._rows - self._max_rows, 0) + max(self._max_rows // 20, 1)
            if self._rows <= self._max_rows:
                surplus = max(self._rows // 20, 1)
            self._writer.execute(
                "DELETE FROM entries WHERE seq IN (SELECT seq FROM entries ORDER BY timestamp, insert_id, log_name LIMIT ?)", (surplus,)
            )
            self._count()

    def _count(self) -> None:
        self._rows, self._bytes = self._writer.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM entries").fetchone()


def _project(parent: str) -> str:
    return "/".join(parent.split("/")[:2])  # a view of a log bucket is read as its project


def _stamp(moment: Any) -> int:
    nanos: int = moment.seconds * _NANO + moment.nanos
    return max(-_INT64, min(_INT64, nanos))  # 64 bits end in the year 2262


def _row(entry: Any) -> Row:
    labels = entry.resource.labels
    stamp, received = _stamp(entry.timestamp), _stamp(entry.receive_timestamp)
    label = labels.get
    return (
        entry.log_name, entry.insert_id, stamp, received or stamp, entry.severity, entry.resource.type, label("location", ""),
        label("service_name", ""), label("revision_name", ""), entry.labels.get("instanceId", ""), entry.SerializeToString(),
    )  # fmt: skip


def _conditions(parents: Sequence[str], chosen: logfilter.Filter) -> tuple[list[str], list[Any]]:
    """The part of the filter that SQL decides by its indexes; the filter itself decides again on what is left."""
    projects = sorted({_project(parent) for parent in parents})
    where = ["(" + " OR ".join("substr(log_name, 1, ?) = ?" for _ in projects) + ")"] if projects else ["1"]
    values: list[Any] = [part for project in projects for part in (len(project) + 6, f"{project}/logs/")]
    for bound in chosen.bounds:
        where.append(f"{bound.column} {bound.operator} ?")
        values.append(bound.value)
    return where, values


def _newest_first(order_by: str) -> bool:
    match order_by.lower().split():
        case [] | ["timestamp"] | ["timestamp", "asc"]:
            return False
        case ["timestamp", "desc"]:
            return True
    raise BadQuery(f"order_by is {order_by!r}; it must be 'timestamp asc' or 'timestamp desc'.")


def _token(last: Any, request: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([request, _stamp(last.timestamp), last.insert_id, last.log_name]).encode()).decode()


def _read_token(token: str, request: str) -> tuple[int, str, str]:
    try:
        given, stamp, insert_id, log_name = json.loads(base64.urlsafe_b64decode(token))
        if given == request and isinstance(stamp, int) and isinstance(insert_id, str) and isinstance(log_name, str):
            return stamp, insert_id, log_name
    except ValueError:
        pass
    raise BadQuery("page_token is not of this request: send it with the same resource_names, filter and order_by that it was given for.")
