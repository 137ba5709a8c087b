"""Log entries that arrive late, twice or not at all, as the local cloud is asked to have them."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from clouds import eventually

from localcloud.logs import entries
from localcloud.logs.logstore import LogStore

PROJECT = "projects/demo"
WHO = ("demo", "europe-west1", "emergence-app", "emergence-app-00001-abc", "i-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    store = LogStore(tmp_path / "logs.db")
    yield store
    store.close()


def line(text: str, at: float = 0) -> Any:
    return entries.line_entry(*WHO, "stdout", text, 1_760_000_000.0 + at)


def listed(store: LogStore) -> list[str]:
    return [entry.text_payload for entry in store.list([PROJECT]).entries]


def test_an_entry_is_made_on_the_writers_thread_and_one_that_cannot_be_made_harms_no_other(store: LogStore) -> None:
    store.write_later(lambda: line("first", 1))
    store.write_later(lambda: line("impossible", float("nan")))
    store.write([line("second", 2)])
    assert listed(store) == ["first", "second"]


def test_with_a_delay_readers_see_an_entry_only_after_it(store: LogStore) -> None:
    store.delay_s = 0.3
    store.write([line("one", 1), line("two", 2)])
    assert listed(store) == []
    assert eventually(lambda: listed(store), 5) == ["one", "two"]


def test_an_entry_is_lost_late_or_there_twice_as_its_fate_says(store: LogStore) -> None:
    fates: dict[str, tuple[float, ...]] = {"lost": (), "late": (0.3,), "twice": (0, 0), "usual": (0,)}
    store.fate = lambda entry: fates[entry.text_payload]
    store.write([line(text, at) for at, text in enumerate(fates)])
    assert listed(store) == ["twice", "twice", "usual"]
    one, two, _ = store.list([PROJECT]).entries
    assert one == two
    assert eventually(lambda: "late" in listed(store), 5)
    late = store.list([PROJECT], 'textPayload="late"').entries[0]
    assert late.receive_timestamp.ToNanoseconds() - late.timestamp.ToNanoseconds() == 300_000_000


def test_doubled_entries_are_listed_page_by_page_without_a_loss(store: LogStore) -> None:
    store.fate = lambda _: (0, 0, 0)
    store.write([line(str(number), number) for number in range(5)])
    found, token = [], ""
    while True:
        page = store.list([PROJECT], page_size=2, page_token=token)
        found += [entry.text_payload for entry in page.entries]
        if not (token := page.next_page_token):
            break
    assert found == [str(number) for number in range(5) for _ in range(3)]


def test_what_is_held_back_is_kept_when_the_store_is_closed(tmp_path: Path) -> None:
    store = LogStore(tmp_path / "logs.db")
    store.delay_s = 3600
    store.write([line("held")])
    store.close()
    again = LogStore(tmp_path / "logs.db")
    assert listed(again) == ["held"]
    again.close()


def test_a_store_of_an_earlier_version_is_read_on(tmp_path: Path) -> None:
    old, entry = sqlite3.connect(tmp_path / "logs.db"), line("of old")
    old.executescript("""
        CREATE TABLE entries (seq INTEGER PRIMARY KEY, log_name TEXT COLLATE NOCASE NOT NULL, insert_id TEXT NOT NULL,
            timestamp INTEGER NOT NULL, received INTEGER NOT NULL, severity INTEGER NOT NULL, resource_type TEXT COLLATE NOCASE,
            location TEXT COLLATE NOCASE, service TEXT COLLATE NOCASE, revision TEXT COLLATE NOCASE, instance TEXT, body BLOB NOT NULL);
        CREATE UNIQUE INDEX once ON entries (timestamp, insert_id, log_name);
        CREATE INDEX by_service ON entries (service, timestamp, insert_id, log_name);
        CREATE INDEX by_revision ON entries (service, revision, timestamp, insert_id, log_name);
    """)
    row = (entry.log_name, entry.insert_id, entry.timestamp.ToNanoseconds(), 0, 0, "", "", WHO[2], WHO[3], "", entry.SerializeToString())
    old.execute("INSERT INTO entries VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
    old.commit()
    old.close()
    store = LogStore(tmp_path / "logs.db")
    store.write([line("new", 1)])
    assert listed(store) == ["of old", "new"]
    store.close()
