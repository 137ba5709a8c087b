"""Log entries as they arrive, through the official client's stream."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clouds import eventually
from google.api_core import exceptions
from google.cloud.logging_v2 import types
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.protobuf import duration_pb2
from served import client, served

from localcloud import wire
from localcloud.logs import entries
from localcloud.logs.logtail import tail as tailed
from localcloud.logs.service import Logging, LogStore

PROJECT = "projects/demo"
WHO = ("demo", "europe-west1", "emergence-app", "emergence-app-00001-abc", "i-1")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    store = LogStore(tmp_path / "logs.db")
    yield store
    store.close()


@pytest.fixture
def logging(store: LogStore) -> Iterator[Any]:
    async def start() -> Any:
        async def close() -> None:
            return

        return [wire.service("google.cloud.logging_v2", LoggingServiceV2Client, Logging(store))], close

    with served(start) as address:
        yield client(LoggingServiceV2Client, address)


Tail = Callable[..., list[str]]


@pytest.fixture
def tail(logging: Any) -> Iterator[Tail]:
    """Begins a tail; gives the list that its texts come into."""
    streams: list[Any] = []
    threads: list[threading.Thread] = []

    def begin(window_s: float, filter: str = "") -> list[str]:
        window = duration_pb2.Duration(nanos=int(window_s * 1e9))
        request = types.TailLogEntriesRequest(resource_names=[PROJECT], filter=filter, buffer_window=window)
        came: list[str] = []

        def read() -> None:
            try:
                stream = logging.tail_log_entries(iter([request]), timeout=30)  # gives something only when something came
                streams.append(stream)
                for answer in stream:
                    came.extend(entry.text_payload for entry in answer.entries)
            except (exceptions.Cancelled, exceptions.ServiceUnavailable):
                return

        threads.append(threading.Thread(target=read, daemon=True))
        threads[-1].start()
        return came

    yield begin
    for stream in streams:
        stream.cancel()
    for thread in threads:
        thread.join(5)


def line(text: str, at: float) -> Any:
    return entries.line_entry(*WHO, "stdout", text, 1_760_000_000.0 + at)


def written_until(store: LogStore, came: list[str]) -> None:
    """The tail begins when the server has it: write until it is seen."""
    numbers = iter(range(10_000))

    def seen() -> bool:
        store.write([line("begun", -1 - next(numbers))])
        return bool(came)

    eventually(seen, 10)


def test_what_arrives_is_sent_and_what_was_there_before_is_not(store: LogStore, tail: Tail) -> None:
    store.write([line("old", 0)])
    came = tail(0)
    written_until(store, came)
    store.write([line("new", 1)])
    eventually(lambda: "new" in came, 5)
    assert "old" not in came


def test_within_the_window_entries_come_in_the_order_of_their_time_and_by_the_filter(store: LogStore, tail: Tail) -> None:
    came = tail(0.9, 'textPayload=~"^(begun|[a-c])$"')
    written_until(store, came)
    for text, at in (("c", 3), ("a", 1), ("x", 0), ("b", 2)):
        store.write([line(text, at)])
    eventually(lambda: "c" in came, 5)
    assert [text for text in came if text != "begun"] == ["a", "b", "c"]


def test_a_tail_that_cannot_be_is_refused(logging: Any) -> None:
    long = duration_pb2.Duration(seconds=61)
    wrongs = {"Unparseable filter": {"filter": "("}, "between 0 and 60": {"buffer_window": long}, "At least": {"resource_names": []}}
    for says, wrong in wrongs.items():
        request = types.TailLogEntriesRequest({"resource_names": [PROJECT], **wrong})
        with pytest.raises(exceptions.InvalidArgument, match=says):
            next(iter(logging.tail_log_entries(iter([request]), timeout=10)))


def test_beyond_sixty_thousand_in_a_minute_entries_are_left_out_and_counted() -> None:
    async def read(place: int) -> tuple[list[Any], int]:
        return ([line("x", 0)] * 60_003 if place == 0 else [], 1)

    async def first() -> tuple[int, int]:
        found, suppressed = await anext(tailed(read, 0, window_s=0))
        return len(found), suppressed

    assert asyncio.run(first()) == (60_000, 3)
