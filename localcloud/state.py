"""What the local cloud must remember: one SQLite file; resources are kept as the protobuf messages that the clients see."""

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

_SCHEMA = """
CREATE TABLE IF NOT EXISTS services (name TEXT PRIMARY KEY, body BLOB NOT NULL, policy BLOB NOT NULL DEFAULT x'',
    made INTEGER NOT NULL DEFAULT 0, routes TEXT NOT NULL DEFAULT '[]');
CREATE TABLE IF NOT EXISTS revisions (name TEXT PRIMARY KEY, service TEXT NOT NULL, number INTEGER NOT NULL, body BLOB NOT NULL,
    template BLOB NOT NULL, image TEXT NOT NULL DEFAULT '', phase TEXT NOT NULL, message TEXT NOT NULL DEFAULT '');
CREATE INDEX IF NOT EXISTS revisions_of ON revisions (service, number);
CREATE TABLE IF NOT EXISTS operations (number INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT UNIQUE NOT NULL, body BLOB NOT NULL,
    done INTEGER NOT NULL, resume TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS ports (service TEXT NOT NULL, tag TEXT NOT NULL, port INTEGER NOT NULL UNIQUE, PRIMARY KEY (service, tag));
CREATE TABLE IF NOT EXISTS cursors (container TEXT NOT NULL, stream TEXT NOT NULL, stamp TEXT NOT NULL, PRIMARY KEY (container, stream));
"""

_KEPT_OPERATIONS = 5000
Phase = Literal["pending", "ready", "failed"]


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
    """A revision's row: the message, the template that it was made of (without its name), and the image by digest."""

    name: str
    service: str
    number: int
    body: bytes
    template: bytes
    image: str
    phase: Phase
    message: str


class State:
    """One connection, used on the event loop's thread only; every call is a transaction of its own."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(path, isolation_level=None, timeout=5)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = NORMAL")
        self._db.executescript(_SCHEMA)
        old = "DELETE FROM operations WHERE done = 1 AND number <= (SELECT max(number) FROM operations) - ?"
        self._db.execute(old, (_KEPT_OPERATIONS,))

    @property
    def connection(self) -> sqlite3.Connection:
        """The one connection, for modules that keep tables of their own in the same file."""
        return self._db

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
        self._db.execute("BEGIN")
        self._db.execute("DELETE FROM services WHERE name = ?", (name,))
        self._db.execute("DELETE FROM revisions WHERE service = ?", (name,))
        self._db.execute("DELETE FROM ports WHERE service = ?", (name,))
        self._db.execute("COMMIT")

    # revisions

    def revision(self, name: str) -> StoredRevision | None:
        """Give one revision by its full name."""
        found = self._revisions("WHERE name = ?", (name,))
        return found[0] if found else None

    def revisions(self, service: str) -> list[StoredRevision]:
        """Give the revisions of a service, newest first."""
        return self._revisions("WHERE service = ? ORDER BY number DESC", (service,))

    def all_revisions(self) -> list[StoredRevision]:
        """Give every revision, newest first within its service."""
        return self._revisions("ORDER BY service, number DESC", ())

    def put_revision(self, stored: StoredRevision) -> None:
        """Write one revision."""
        self._db.execute(
            "INSERT OR REPLACE INTO revisions (name, service, number, body, template, image, phase, message) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (stored.name, stored.service, stored.number, stored.body, stored.template, stored.image, stored.phase, stored.message),
        )

    def delete_revision(self, name: str) -> None:
        """Forget a revision."""
        self._db.execute("DELETE FROM revisions WHERE name = ?", (name,))

    def _revisions(self, where: str, values: tuple[str, ...]) -> list[StoredRevision]:
        query = f"SELECT name, service, number, body, template, image, phase, message FROM revisions {where}"
        return [StoredRevision(*row) for row in self._db.execute(query, values)]

    # operations

    def put_operation(self, name: str, body: bytes, *, done: bool, resume: str) -> None:
        """Write one operation."""
        self._db.execute(
            "INSERT INTO operations (name, body, done, resume) VALUES (?, ?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET body = excluded.body, done = excluded.done, resume = excluded.resume",
            (name, body, int(done), resume),
        )

    def operation(self, name: str) -> bytes | None:
        """Give one operation."""
        row = self._db.execute("SELECT body FROM operations WHERE name = ?", (name,)).fetchone()
        return row[0] if row else None

    def operations(self, parent: str) -> list[bytes]:
        """Give the operations of `projects/P/locations/L`, newest first."""
        prefix = parent.removesuffix("/operations") + "/operations/"
        query = "SELECT body FROM operations WHERE substr(name, 1, ?) = ? ORDER BY number DESC"
        return [row[0] for row in self._db.execute(query, (len(prefix), prefix))]

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
