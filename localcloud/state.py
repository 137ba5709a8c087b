"""What the local cloud must remember: one SQLite file; resources are kept as the protobuf messages that the clients see."""

import asyncio
import logging
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from localcloud.wire import Code, Refusal

log = logging.getLogger(__name__)
T = TypeVar("T")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS services (name TEXT PRIMARY KEY, body BLOB NOT NULL, policy BLOB NOT NULL DEFAULT x'',
    made INTEGER NOT NULL DEFAULT 0, routes TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS revisions (name TEXT PRIMARY KEY, service TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    template BLOB NOT NULL, image TEXT NOT NULL DEFAULT '', phase TEXT NOT NULL, message TEXT NOT NULL DEFAULT '',
    activity TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS revisions_of ON revisions (service, number);
CREATE INDEX IF NOT EXISTS revisions_active ON revisions (service) WHERE phase = 'ready' AND activity != 'retired';
CREATE TABLE IF NOT EXISTS operations (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, body BLOB NOT NULL,
    done INTEGER NOT NULL, resume TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ports (service TEXT NOT NULL, tag TEXT NOT NULL, port INTEGER NOT NULL UNIQUE, PRIMARY KEY (service, tag));
CREATE TABLE IF NOT EXISTS arriving (body BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS cursors (container TEXT NOT NULL, stream TEXT NOT NULL, stamp TEXT NOT NULL, PRIMARY KEY (container, stream));
"""

_VERSION = 1
_CHANGES = ("ALTER TABLE revisions ADD COLUMN activity TEXT NOT NULL DEFAULT ''",)  # what made each version of the one before

_KEPT_OPERATIONS = 5000
Phase = Literal["pending", "ready", "failed"]
Activity = Literal["", "active", "retired"]


@dataclass(frozen=True)
class StoredService:
    """A service's row: the message, its access policy, how many revisions were ever made, and who serves now (JSON)."""

    name: str
    body: bytes
    policy: bytes = b""
    made: int = 0
    routes: str = "[]"


@dataclass(frozen=True)
class StoredRevision:
    """A revision's row: the message, the template that it was made of (without its name), the image by digest, and what was told
    of its activity."""

    name: str
    service: str
    number: int
    body: bytes
    template: bytes
    image: str
    phase: Phase
    message: str
    activity: Activity = ""


_REVISION = "name, service, number, body, template, image, phase, message, activity"


class DiskRefuses(Refusal):
    """The state could not be read or written."""

    def __init__(self, error: sqlite3.OperationalError) -> None:
        if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
            text = "The disk that holds the local cloud's state is full: nothing was changed. Make room, and ask again."
            super().__init__(Code.RESOURCE_EXHAUSTED, text)
        else:
            text = f"The local cloud's state cannot be read or written ({error}): nothing was changed. See to its disk, and ask again."
            super().__init__(Code.UNAVAILABLE, text)


class Connection(sqlite3.Connection):
    """A connection whose disk errors are `DiskRefuses`: nothing was written, and the same call works again when there is room."""

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        """Run one statement."""
        try:
            return super().execute(sql, parameters)
        except sqlite3.OperationalError as error:
            raise DiskRefuses(error) from error

    def executemany(self, sql: str, parameters: Any, /) -> sqlite3.Cursor:
        """Run one statement for each of the parameters."""
        try:
            return super().executemany(sql, parameters)
        except sqlite3.OperationalError as error:
            raise DiskRefuses(error) from error


class State:
    """One connection, used on the event loop's thread only; a call outside of `transaction` is a transaction of its own.

    Write-ahead logging with synchronous=NORMAL: what was written outlives the process however it ends; a power cut may take the
    last writes, and never the file.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5, factory=Connection)
        self._depth = 0
        self._afterwards: list[tuple[Callable[[], object], Callable[[], object]]] = []
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._update()

    def _update(self) -> None:
        """Make the tables, or bring the file of an earlier version to this one's form; all or nothing."""
        (version,) = self._db.execute("PRAGMA user_version").fetchone()
        if version > _VERSION:
            raise sqlite3.DatabaseError(f"it was written by a later version of the local cloud: {version}, and this one knows {_VERSION}")
        with self.transaction():
            earlier = self._db.execute("SELECT 1 FROM sqlite_master WHERE name = 'revisions'").fetchone()
            for statement in (*(_CHANGES[version:] if earlier else ()), *_SCHEMA.split(";")):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA user_version = {_VERSION}")

    @property
    def connection(self) -> Connection:
        """The one connection, for modules that keep tables of their own in the same file."""
        return self._db

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All that is written inside is written, or nothing; one inside another belongs to the outer one. Never await inside."""
        if self._depth:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            for _, otherwise in self._forget_afterwards():
                otherwise()
            raise
        for then, _ in self._forget_afterwards():
            then()

    def afterwards(self, then: Callable[[], object], otherwise: Callable[[], object] = lambda: None) -> None:
        """Call `then` when the transaction has been written (now, if there is none), or `otherwise` when it was not."""
        if self._depth:
            self._afterwards.append((then, otherwise))
        else:
            then()

    async def insist(self, write: Callable[[], T]) -> T:
        """Do what must be written since it has happened already; as long as the disk refuses, again every second."""
        while True:
            try:
                with self.transaction():
                    return write()
            except DiskRefuses as refusal:
                log.warning("%s", refusal.message)
                await asyncio.sleep(1)

    def _forget_afterwards(self) -> list[tuple[Callable[[], object], Callable[[], object]]]:
        found, self._afterwards, self._depth = self._afterwards, [], 0
        return found

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # services

    def service(self, name: str) -> StoredService | None:
        """Give one service."""
        row = self._db.execute("SELECT name, body, policy, made, routes FROM services WHERE name = ?", (name,)).fetchone()
        return StoredService(*row) if row else None

    def services(self) -> list[StoredService]:
        """Give all services by name."""
        return [StoredService(*row) for row in self._db.execute("SELECT name, body, policy, made, routes FROM services ORDER BY name")]

    def put_service(self, stored: StoredService) -> None:
        """Write one service."""
        self._db.execute(
            "INSERT OR REPLACE INTO services (name, body, policy, made, routes) VALUES (?, ?, ?, ?, ?)",
            (stored.name, stored.body, stored.policy, stored.made, stored.routes),
        )

    def delete_service(self, name: str) -> None:
        """Forget a service, its revisions and its ports."""
        with self.transaction():
            self._db.execute("DELETE FROM services WHERE name = ?", (name,))
            self._db.execute("DELETE FROM revisions WHERE service = ?", (name,))
            self._db.execute("DELETE FROM ports WHERE service = ?", (name,))

    # revisions (a service may have a thousand, most of them retired: what is done often reads only those that it needs)

    def revision(self, name: str) -> StoredRevision | None:
        """Give one revision by its full name."""
        found = self._revisions("WHERE name = ?", (name,))
        return found[0] if found else None

    def revisions(self, service: str) -> list[StoredRevision]:
        """Give the revisions of a service, newest first."""
        return self._revisions("WHERE service = ? ORDER BY number DESC", (service,))

    def revision_names(self, service: str) -> list[str]:
        """Give the full names of a service's revisions, newest first."""
        return [row[0] for row in self._db.execute("SELECT name FROM revisions WHERE service = ? ORDER BY number DESC", (service,))]

    def latest_ready(self, service: str) -> str:
        """Give the full name of the newest revision that is ready ("" if none is)."""
        query = "SELECT name FROM revisions WHERE service = ? AND phase = 'ready' ORDER BY number DESC LIMIT 1"
        row = self._db.execute(query, (service,)).fetchone()
        return row[0] if row else ""

    def active_revisions(self, service: str) -> list[StoredRevision]:
        """Give the ready revisions that are not yet told to be retired."""
        return self._revisions("WHERE service = ? AND phase = 'ready' AND activity != 'retired'", (service,))

    def pending_revisions(self, service: str | None = None) -> list[StoredRevision]:
        """Give the revisions, of one service or of all, that are still to be tried."""
        if service is None:
            return self._revisions("WHERE phase = 'pending' ORDER BY service, number", ())
        return self._revisions("WHERE service = ? AND phase = 'pending' ORDER BY number", (service,))

    def retired_revisions(self) -> list[str]:
        """Give the full names of all revisions that were told to be retired."""
        return [row[0] for row in self._db.execute("SELECT name FROM revisions WHERE activity = 'retired'")]

    def all_revisions(self) -> list[StoredRevision]:
        """Give every revision, newest first within its service."""
        return self._revisions("ORDER BY service, number DESC", ())

    def put_revision(self, stored: StoredRevision) -> None:
        """Write one revision."""
        self._db.execute(
            f"INSERT OR REPLACE INTO revisions ({_REVISION}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            tuple(getattr(stored, each) for each in _REVISION.split(", ")),
        )

    def delete_revision(self, name: str) -> None:
        """Forget a revision."""
        self._db.execute("DELETE FROM revisions WHERE name = ?", (name,))

    def _revisions(self, where: str, values: tuple[str, ...]) -> list[StoredRevision]:
        return [StoredRevision(*row) for row in self._db.execute(f"SELECT {_REVISION} FROM revisions {where}", values)]

    # operations

    def put_operation(self, name: str, body: bytes, *, done: bool, resume: str) -> None:
        """Write one operation; of those that are done, the oldest are forgotten."""
        with self.transaction():
            self._db.execute(
                "INSERT INTO operations (name, body, done, resume) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (name) DO UPDATE SET body = excluded.body, done = excluded.done, resume = excluded.resume",
                (name, body, int(done), resume),
            )
            old = "DELETE FROM operations WHERE done = 1 AND number <= (SELECT max(number) FROM operations) - ?"
            self._db.execute(old, (_KEPT_OPERATIONS,))

    def operation(self, name: str) -> bytes | None:
        """Give one operation."""
        row = self._db.execute("SELECT body FROM operations WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def operations(self, parent: str, done: bool | None = None) -> list[str]:
        """Give the names of the operations of `projects/P/locations/L`, newest first."""
        prefix = parent.removesuffix("/operations") + "/operations/"
        query = "SELECT name FROM operations WHERE substr(name, 1, ?) = ? AND done IN (?, ?) ORDER BY number DESC"
        wanted = (0, 1) if done is None else (done, done)
        return [row[0] for row in self._db.execute(query, (len(prefix), prefix, *wanted))]

    def unfinished_operations(self) -> list[tuple[str, bytes, str]]:
        """Give (name, body, resume) of the operations that are not done, oldest first."""
        return list(self._db.execute("SELECT name, body, resume FROM operations WHERE done = 0 ORDER BY number"))

    def delete_operation(self, name: str) -> None:
        """Forget an operation."""
        self._db.execute("DELETE FROM operations WHERE name = ?", (name,))

    # ports of listeners

    def port(self, service: str, tag: str) -> int | None:
        """Give the port that a service (tag "") or one of its tags was given."""
        row = self._db.execute("SELECT port FROM ports WHERE service = ? AND tag = ?", (service, tag)).fetchone()
        return row[0] if row else None

    def ports(self) -> set[int]:
        """Give every port that was given to somebody."""
        return {row[0] for row in self._db.execute("SELECT port FROM ports")}

    def put_port(self, service: str, tag: str, port: int) -> None:
        """Give a port to a service or a tag."""
        self._db.execute("INSERT OR REPLACE INTO ports (service, tag, port) VALUES (?, ?, ?)", (service, tag, port))

    # how far each container's output was read

    def cursor(self, container: str, stream: str) -> str:
        """Give the time stamp of the last line that was stored ("" when none was)."""
        row = self._db.execute("SELECT stamp FROM cursors WHERE container = ? AND stream = ?", (container, stream)).fetchone()
        return row[0] if row else ""

    def put_cursor(self, container: str, stream: str, stamp: str) -> None:
        """Remember the last line that was stored."""
        self._db.execute("INSERT OR REPLACE INTO cursors (container, stream, stamp) VALUES (?, ?, ?)", (container, stream, stamp))

    def delete_cursors(self, container: str) -> None:
        """Forget a container that is gone."""
        self._db.execute("DELETE FROM cursors WHERE container = ?", (container,))
