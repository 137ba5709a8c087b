"""Makes a SQLite database find its disk full, with SQLite's own limit on pages: every write fails as it does on a full disk."""

import sqlite3
from collections.abc import Callable

_ENOUGH = 2**31 - 2  # SQLite's own greatest number of pages
_BALLAST_PAGES = 1000  # more than a write could find free inside the file


def fill(connection: sqlite3.Connection, met: Callable[[], bool]) -> None:
    """From now on every write of this connection fails with SQLITE_FULL; `met` is called each time, and lets it go well by False.

    Small writes find room in pages that are half empty, so each of them first asks for more pages than there are: by triggers that only
    this connection has, and that leave nothing behind.
    """
    connection.create_function("disk_is_full", 0, lambda: int(met()))
    connection.execute("CREATE TABLE IF NOT EXISTS ballast (weight BLOB)")
    page_size, free = (connection.execute(f"PRAGMA {each}").fetchone()[0] for each in ("page_size", "freelist_count"))
    weight = (free + _BALLAST_PAGES) * page_size
    for table in _tables(connection):
        for action in ("INSERT", "UPDATE", "DELETE"):
            connection.execute(
                f'CREATE TEMP TRIGGER IF NOT EXISTS "full {action} {table}" BEFORE {action} ON main."{table}" '
                f"BEGIN INSERT INTO ballast SELECT zeroblob({weight}) WHERE disk_is_full(); END"
            )
    connection.execute("PRAGMA max_page_count = 1")  # SQLite takes the number of pages that there are


def release(connection: sqlite3.Connection) -> None:
    """There is room on the disk again."""
    for (trigger,) in connection.execute("SELECT name FROM sqlite_temp_master WHERE type = 'trigger' AND name LIKE 'full %'").fetchall():
        connection.execute(f'DROP TRIGGER temp."{trigger}"')
    connection.execute(f"PRAGMA max_page_count = {_ENOUGH}")


def _tables(connection: sqlite3.Connection) -> list[str]:
    query = "SELECT name FROM main.sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' AND name <> 'ballast'"
    return [name for (name,) in connection.execute(query)]
