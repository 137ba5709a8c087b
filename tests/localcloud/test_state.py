"""What the state promises: transactions as a whole, full disks that are refusals, files of earlier versions."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from localcloud.state import _SCHEMA, DiskRefuses, State, StoredService
from localcloud.wire import Code

NAME = "projects/p/locations/r/services/one"


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = State(tmp_path / "cloud.sqlite")
    yield made
    made.close()


def test_a_transaction_is_written_as_a_whole_or_not_at_all(state: State) -> None:
    told: list[str] = []

    def broken_off() -> None:
        with state.transaction():
            with state.transaction():
                state.put_service(StoredService(NAME, b"body"))
                state.afterwards(lambda: told.append("then"), lambda: told.append("otherwise"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        broken_off()
    assert (state.service(NAME), told) == (None, ["otherwise"])
    with state.transaction():
        state.put_service(StoredService(NAME, b"body"))
        state.afterwards(lambda: told.append("then"))
        assert told == ["otherwise"]
    assert told == ["otherwise", "then"]
    assert state.service(NAME) == StoredService(NAME, b"body")


def test_a_full_disk_is_a_refusal_and_the_next_write_works_when_there_is_room(state: State) -> None:
    state.put_service(StoredService(NAME, b"before"))
    state.connection.execute("PRAGMA max_page_count = 1")  # SQLite's own: not smaller than the file is now

    def too_much() -> None:
        with state.transaction():
            state.put_service(StoredService(NAME, b"after"))
            state.put_service(StoredService(NAME + "2", b"x" * 1_000_000))

    with pytest.raises(DiskRefuses, match="is full: nothing was changed") as refused:
        too_much()
    assert refused.value.code == Code.RESOURCE_EXHAUSTED
    assert state.service(NAME) == StoredService(NAME, b"before")
    state.connection.execute("PRAGMA max_page_count = 1000000")
    state.put_service(StoredService(NAME, b"after"))
    assert state.service(NAME) == StoredService(NAME, b"after")


def test_a_disk_that_refuses_otherwise_is_unavailable(state: State) -> None:
    state.connection.execute("PRAGMA query_only = ON")
    with pytest.raises(DiskRefuses, match="cannot be read or written") as refused:
        state.put_service(StoredService(NAME, b"body"))
    assert refused.value.code == Code.UNAVAILABLE


def test_the_file_of_an_earlier_version_opens_with_all_that_it_has(tmp_path: Path) -> None:
    file = tmp_path / "cloud.sqlite"
    old = _SCHEMA.replace(",\n    activity TEXT NOT NULL DEFAULT ''", "")
    old = "\n".join(line for line in old.splitlines() if "revisions_active" not in line)
    with sqlite3.connect(file) as before:
        before.executescript(old)
        before.execute("INSERT INTO revisions VALUES ('r', 's', 1, x'', x'', 'image', 'ready', '')")
    before.close()
    state = State(file)
    assert [(each.name, each.activity) for each in state.active_revisions("s")] == [("r", "")]
    state.close()
    State(file).close()


def test_the_file_of_a_later_version_is_refused(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "cloud.sqlite") as later:
        later.execute("PRAGMA user_version = 99")
    later.close()
    with pytest.raises(sqlite3.DatabaseError, match="written by a later version"):
        State(tmp_path / "cloud.sqlite")


def test_only_so_many_operations_are_kept_and_none_that_is_not_done(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localcloud.state._KEPT_OPERATIONS", 10)
    state.put_operation("projects/p/locations/r/operations/unfinished", b"", done=False, resume="")
    for number in range(30):
        state.put_operation(f"projects/p/locations/r/operations/{number}", b"", done=True, resume="")
    kept = [name.rsplit("/", 1)[1] for name in state.operations("projects/p/locations/r")]
    assert kept == [*(str(number) for number in range(29, 19, -1)), "unfinished"]
