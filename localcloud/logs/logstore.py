"""A bounded store of log entries in one SQLite file: quick to write, read in pages by a compiled filter."""

import base64
import contextlib
import hashlib
import json
import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from localcloud import clock
from localcloud.logs import entries as shapes
from localcloud.logs import logfilter
from localcloud.logs.loginbox import Fate, Inbox

_log = logging.getLogger(__name__)

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY, log_name TEXT COLLATE NOCASE NOT NULL, insert_id TEXT NOT NULL, timestamp INTEGER NOT NULL,
    copy INTEGER NOT NULL DEFAULT 0, severity INTEGER NOT NULL, resource_type TEXT COLLATE NOCASE, location TEXT COLLATE NOCASE,
    service TEXT COLLATE NOCASE, revision TEXT COLLATE NOCASE, body BLOB NOT NULL);
CREATE UNIQUE INDEX IF NOT EXISTS once ON entries (timestamp, insert_id, log_name, copy);
CREATE INDEX IF NOT EXISTS by_service ON entries (service, timestamp, insert_id, log_name, copy);
CREATE INDEX IF NOT EXISTS by_revision ON entries (service, revision, timestamp, insert_id, log_name, copy);
PRAGMA user_version = 1;
"""
_FROM_0: Final = """
DROP INDEX once;
DROP INDEX by_service;
DROP INDEX by_revision;
ALTER TABLE entries DROP COLUMN received;
ALTER TABLE entries DROP COLUMN instance;
ALTER TABLE entries ADD COLUMN copy INTEGER NOT NULL DEFAULT 0;
"""
_INSERT: Final = (
    "INSERT OR IGNORE INTO entries (log_name, insert_id, timestamp, copy, severity, resource_type, location, service, revision, body)"
    " VALUES (?,?,?,?,?,?,?,?,?,?)"
)
_ORDER: Final = ("timestamp", "insert_id", "log_name", "copy")
_FLUSH_SECONDS: Final = 0.05
_BUFFERED: Final = 20_000  # beyond it a writer flushes itself, and entries that the disk refuses are lost, oldest first
_PAGE_BYTES: Final = 3 * 2**20  # gRPC refuses messages over 4 MiB, unless told otherwise
_TOKEN_SECONDS: Final = 24 * 3600
_TAILED: Final = 1000
_NANO: Final = 1_000_000_000
_INT64: Final = 2**63 - 1
Row = tuple[str, str, int, int, int, str, str, str, str, bytes]


class BadQuery(ValueError):
    """A filter, an order or a page token that cannot be used; the message says why."""


@dataclass(frozen=True)
class Page:
    entries: list[Any]
    next_page_token: str


class LogStore:
    """Entries of all services of one local cloud.

    `write` only appends to memory; a thread commits every 50 ms, and every reader commits first, so that what was written is
    read (unless `delay_s` or `fate` holds it back). The file is in WAL mode: a killed process loses at most its last 50 ms and
    never the file.
    Beyond `max_rows` or `max_bytes` the oldest entries go. After `search_s` a page ends, even an empty one, and its token goes on
    from there [ListLogEntriesResponse.next_page_token].
    """

    def __init__(self, path: Path, max_rows: int = 200_000, max_bytes: int = 256 * 2**20, search_s: float = 2.0) -> None:
        self._path, self._search_s = path, search_s
        self._max_rows, self._max_bytes = max_rows, max_bytes
        path.parent.mkdir(parents=True, exist_ok=True)
        self._inbox = Inbox()
        self._refused: list[Row] = []
        self._writer_lock = threading.Lock()
        self._pending = threading.Event()
        self._closed = threading.Event()
        self._writer = self._connect()
        _set_up(self._writer)
        self._rows, self._bytes = self._writer.execute("SELECT count(*), coalesce(sum(length(body)), 0) FROM entries").fetchone()
        self._thread = threading.Thread(target=self._flush_regularly, name="log-store", daemon=True)
        self._thread.start()

    @property
    def delay_s(self) -> float:
        """How many seconds an entry takes until readers see it."""
        return self._inbox.delay_s

    @delay_s.setter
    def delay_s(self, seconds: float) -> None:
        self._inbox.delay_s = seconds

    @property
    def fate(self) -> Fate | None:
        """Asked for every entry, on the thread that writes it, when its copies arrive; None: as they should."""
        return self._inbox.fate

    @fate.setter
    def fate(self, fate: Fate | None) -> None:
        self._inbox.fate = fate

    def write(self, entries: Iterable[Any]) -> None:
        """Keep these LogEntry messages (protobuf); one already there with the same log, timestamp and insert_id is dropped."""
        self._put(entries)

    def write_later(self, make: Callable[[], Any]) -> None:
        """Keep the LogEntry that this function makes when it is called, soon, on another thread: for those who must not wait."""
        self._put((make,))

    def _put(self, given: Iterable[Any]) -> None:
        waiting = self._inbox.put(given)
        if not self._pending.is_set():
            self._pending.set()
        if waiting > _BUFFERED:
            with contextlib.suppress(sqlite3.Error):  # the thread reports it
                self.flush()

    def flush(self, *, everything: bool = False) -> None:
        """Commit what is in memory; sqlite3.Error if the disk refuses, and then it stays in memory."""
        with self._writer_lock:
            rows = self._refused + [_row(entry, copy) for entry, copy in self._inbox.take(everything=everything)]
            self._refused = []
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
                self._refused = rows[-_BUFFERED:]
                raise

    def list(
        self, resource_names: Sequence[str], filter: str = "", order_by: str = "", page_size: int = 50, page_token: str = ""
    ) -> Page:
        """One page of the entries of these projects that the filter lets through, by timestamp and then insert_id; else BadQuery."""
        chosen = _compiled(filter)
        newest_first = _newest_first(order_by)
        self.flush()
        where, values = _conditions(resource_names, chosen)
        request = hashlib.sha256(repr((sorted(resource_names), filter, newest_first)).encode()).hexdigest()[:16]
        if page_token:
            where.append(f"({', '.join(_ORDER)}) {'<' if newest_first else '>'} (?, ?, ?, ?)")
            values.extend(_read_token(page_token, request))
        order = ", ".join(f"{column} {'DESC' if newest_first else 'ASC'}" for column in _ORDER)
        found: list[Any] = []
        weight = 0
        with self._reading() as reader:
            last: tuple[int, str, str, int] = (0, "", "", 0)
            until = time.monotonic() + self._search_s
            query = f"SELECT {', '.join(_ORDER)}, body FROM entries WHERE {' AND '.join(where)} ORDER BY {order}"
            for *place, body in reader.execute(query, values):
                entry = shapes.LogEntry.FromString(body)
                if chosen(entry):
                    weight += len(body)
                    if found and (len(found) == page_size or weight > _PAGE_BYTES):
                        return Page(found, _token(last, request))
                    found.append(entry)
                last = (place[0], place[1], place[2], place[3])
                if time.monotonic() > until:
                    return Page(found, _token(last, request))
        return Page(found, "")

    def requests(self, most: int, *, severity: int = 0, since: int = 0) -> Sequence[Any]:
        """The newest entries of all request logs, of at least a severity and not before a time (nanoseconds); SQL alone finds them."""
        self.flush()
        order = ", ".join(f"{column} DESC" for column in _ORDER)
        wanted = "log_name LIKE '%/logs/run.googleapis.com%2Frequests' AND severity >= ? AND timestamp >= ?"
        with self._reading() as reader:
            rows = reader.execute(f"SELECT body FROM entries WHERE {wanted} ORDER BY {order} LIMIT ?", (severity, since, most))
            return [shapes.LogEntry.FromString(body) for (body,) in rows]

    def newest(self) -> int:
        """How far the entries go that readers see: where `after` begins."""
        self.flush()
        with self._reading() as reader:
            return int(reader.execute("SELECT coalesce(max(seq), 0) FROM entries").fetchone()[0])

    def after(self, place: int, resource_names: Sequence[str], filter: str = "") -> tuple[Sequence[Any], int]:
        """The entries that arrived after a place and that the filter lets through, as they came, and the place to go on from."""
        chosen = _compiled(filter)
        newest = self.newest()
        if newest <= place:
            return [], newest  # entries were deleted: what comes next takes their numbers
        where, values = _conditions(resource_names, chosen)
        query = f"SELECT seq, body FROM entries WHERE seq > ? AND {' AND '.join(where)} ORDER BY seq LIMIT ?"
        with self._reading() as reader:
            rows = reader.execute(query, (place, *values, _TAILED)).fetchall()
            found = [entry for _, body in rows if chosen(entry := shapes.LogEntry.FromString(body))]
        return found, rows[-1][0] if len(rows) == _TAILED else newest

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

    @contextlib.contextmanager
    def alone(self) -> Iterator[sqlite3.Connection]:
        """The connection that writes, while nobody else writes."""
        with self._writer_lock:
            yield self._writer

    def close(self) -> None:
        """Commit the rest and let go of the file."""
        self._closed.set()
        self._pending.set()
        self._thread.join(timeout=5)
        try:
            self.flush(everything=True)
        except sqlite3.Error as error:
            _log.error("The last %d log entries are lost: %s refuses them (%s).", len(self._refused), self._path, error)
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._path, timeout=5, check_same_thread=False)
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _reading(self) -> "contextlib.closing[sqlite3.Connection]":
        """A connection of one's own."""
        return contextlib.closing(self._connect())

    def _flush_regularly(self) -> None:
        while not self._closed.is_set():
            self._pending.wait(self._inbox.wait_s())
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


def _set_up(writer: sqlite3.Connection) -> None:
    """Make the tables, or bring those of an earlier version up to date; all or nothing."""
    writer.execute("PRAGMA journal_mode = WAL")
    (version,) = writer.execute("PRAGMA user_version").fetchone()
    earlier = version == 0 and writer.execute("SELECT 1 FROM sqlite_master WHERE name = 'entries'").fetchone() is not None
    writer.executescript(f"BEGIN; {_FROM_0 if earlier else ''} {_SCHEMA} COMMIT;")


def _compiled(filter: str) -> logfilter.Filter:
    try:
        return logfilter.compile(filter)
    except logfilter.BadFilter as error:
        raise BadQuery(str(error)) from error


def _project(parent: str) -> str:
    return "/".join(parent.split("/")[:2])  # a view of a log bucket is read as its project


def _stamp(moment: Any) -> int:
    nanos: int = moment.seconds * _NANO + moment.nanos
    return max(-_INT64, min(_INT64, nanos))  # 64 bits end in the year 2262


def _row(entry: Any, copy: int) -> Row:
    label = entry.resource.labels.get
    return (
        entry.log_name, entry.insert_id, _stamp(entry.timestamp), copy, entry.severity, entry.resource.type, label("location", ""),
        label("service_name", ""), label("revision_name", ""), entry.SerializeToString(),
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


def _token(last: tuple[int, str, str, int], request: str) -> str:
    return base64.urlsafe_b64encode(json.dumps([request, clock.time_ns() // _NANO, *last]).encode()).decode()


def _read_token(token: str, request: str) -> tuple[int, str, str, int]:
    match _json(token):
        case [str(given), int(made), int(stamp), str(insert_id), str(log_name), int(copy)] if given == request:
            if clock.time_ns() // _NANO - made > _TOKEN_SECONDS:
                raise BadQuery("page_token has expired: it is good for 24 hours. Ask for the first page again.")  # [approximated]
            return stamp, insert_id, log_name, copy
    raise BadQuery("page_token is not of this request: send it with the same resource_names, filter and order_by that it was given for.")


def _json(token: str) -> object:
    try:
        return json.loads(base64.urlsafe_b64decode(token))
    except ValueError:
        return None
