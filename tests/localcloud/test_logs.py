"""Cloud Logging of the local cloud, seen by the official client, and the store beneath it."""

import contextlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from google.api.monitored_resource_pb2 import MonitoredResource
from google.api_core import exceptions
from google.cloud.logging_v2 import types
from google.cloud.logging_v2.services.logging_service_v2 import LoggingServiceV2Client
from google.protobuf import json_format, timestamp_pb2
from google.rpc import status_pb2
from served import client, served

from localcloud import clock, wire
from localcloud.logs import entries, logfilter
from localcloud.logs.logstore import BadQuery
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


def line(text: str, at: float, stream: str = "stdout") -> Any:
    return entries.line_entry(*WHO, stream, text, 1_760_000_000.0 + at)


def request(status: int, at: float, **other: Any) -> Any:
    return entries.request_entry(
        *WHO, method="GET", url="http://127.0.0.1/api", status=status, request_size=1, response_size=2, user_agent="curl",
        remote_ip="127.0.0.1", latency_s=0.0043, protocol="HTTP/1.1", trace="ab" * 16, start_ts=1_760_000_000.0 + at, **other,
    )  # fmt: skip


def texts(answer: Any) -> list[str]:
    return [entry.text_payload for entry in answer]


def test_what_was_written_is_listed_at_once_in_the_order_of_time_and_then_of_writing(store: LogStore, logging: Any) -> None:
    store.write([line("second", 2), line("first", 1)])
    store.write([line(f"tie {number}", 3) for number in range(20)])
    listed = texts(logging.list_log_entries(request={"resource_names": [PROJECT], "page_size": 7}))
    assert listed == ["first", "second", *(f"tie {number}" for number in range(20))]
    backwards = texts(logging.list_log_entries(request={"resource_names": [PROJECT], "order_by": "timestamp desc", "page_size": 7}))
    assert backwards == listed[::-1]


def test_a_line_of_json_has_its_special_fields_lifted_out() -> None:
    entry = line(
        '{"severity":"warn","message":"hello","code":7,"time":"2025-10-09T08:30:00.123456789+02:00","httpRequest":{"status":200,"x":1},'
        '"logging.googleapis.com/trace":"' + "cd" * 16 + '","logging.googleapis.com/spanId":"12","logging.googleapis.com/labels":{"a":"b"},'
        '"logging.googleapis.com/sourceLocation":{"file":"app.py","line":"7"},"logging.googleapis.com/operation":{"id":"op"}}',
        at=5,
    )
    assert dict(entry.json_payload) == {"message": "hello", "code": 7}
    assert (entry.severity, entry.trace, entry.span_id) == (400, f"projects/demo/traces/{'cd' * 16}", "12")
    assert (entry.http_request.status, entry.labels["a"], entry.labels["instanceId"]) == (200, "b", "i-1")
    assert (entry.source_location.file, entry.source_location.line, entry.operation.id) == ("app.py", 7, "op")
    assert entry.timestamp.ToJsonString() == "2025-10-09T06:30:00.123456789Z"


@pytest.mark.parametrize(
    ("text", "payload"),
    [
        ('{"message":"only this","severity":"INFO"}', "only this"),
        ("plain\r\n", "plain"),
        ("{not json}", "{not json}"),
        ('{"a":NaN}', '{"a":NaN}'),
        ('{"a":1e999}', '{"a":1e999}'),
        ('{"a":1' + "0" * 400 + "}", '{"a":1' + "0" * 400 + "}"),
        ("[1, 2]", "[1, 2]"),
        ("{" * 2000, "{" * 2000),
        ('{"a":' * 2000 + "1" + "}" * 2000, '{"a":' * 2000 + "1" + "}" * 2000),
        ("half a pair: \ud83d", "half a pair: ?"),
        ("", ""),
    ],
)
def test_a_line_that_is_no_object_or_only_a_message_is_text(text: str, payload: str) -> None:
    assert line(text, 0).text_payload == payload
    assert line(text, 0).WhichOneof("payload") == "text_payload"


def test_a_special_field_of_the_wrong_shape_stays_in_the_payload() -> None:
    entry = line('{"message":"m","severity":"loud","time":"noon","httpRequest":{"status":"many"},"logging.googleapis.com/trace":7}', 0)
    assert dict(entry.json_payload) == {
        "message": "m", "severity": "loud", "time": "noon", "httpRequest": {"status": "many"}, "logging.googleapis.com/trace": 7,
    }  # fmt: skip
    assert entry.timestamp.seconds == 1_760_000_000


@pytest.mark.parametrize(
    "odd",
    [
        pytest.param({"severity": 2**31}, id="a severity that no field holds"),
        pytest.param({"severity": -1}, id="a negative severity"),
        pytest.param({"time": {"seconds": 10**15}}, id="a time in the year 31 million"),
        pytest.param({"timestamp": {"seconds": -(10**15)}}, id="a time before the year 1"),
        pytest.param({"time": "9999-12-31T23:59:59-23:00"}, id="an offset into the year 10000"),
    ],
)
def test_a_severity_or_time_that_no_client_can_read_stays_in_the_payload(odd: dict[str, Any]) -> None:
    entry = line(json.dumps({"message": "m", **odd}), 0)
    assert json.loads(json.dumps(json_format.MessageToDict(entry.json_payload))) == {"message": "m", **odd}
    assert (entry.severity, entry.timestamp.ToSeconds()) == (0, 1_760_000_000)


def test_a_user_agent_in_another_encoding_is_logged_with_question_marks() -> None:
    made = entries.request_entry(
        *WHO, method="GET", url="http://127.0.0.1/", status=200, request_size=0, response_size=0,
        user_agent=b"caf\xe9".decode("utf-8", "surrogateescape"), remote_ip="127.0.0.1", latency_s=0, protocol="HTTP/1.1", trace="",
        start_ts=1_760_000_000.0,
    )  # fmt: skip
    assert made.http_request.user_agent == "caf?"


def test_an_entry_whose_time_no_client_could_read_is_not_written(logging: Any) -> None:
    entry = types.LogEntry.pb()(text_payload="x", log_name=f"{PROJECT}/logs/relais")
    entry.timestamp.seconds = 10**12
    with pytest.raises(exceptions.InvalidArgument, match=r"entries\[0\]: The timestamp cannot be: .*years 1 to 9999"):
        logging.write_log_entries(request={"entries": [types.LogEntry.wrap(entry)]})


def test_a_request_is_logged_as_cloud_run_does() -> None:
    entry = request(503, 0, labels={"team": "memory"}, referer="http://a/", server_ip="127.0.0.1", span="00ff", remark="no instance")
    assert (entry.http_request.referer, entry.http_request.server_ip) == ("http://a/", "127.0.0.1")
    assert (entry.span_id, entry.text_payload, entry.trace) == ("00ff", "no instance", f"projects/demo/traces/{'ab' * 16}")
    assert entry.log_name == "projects/demo/logs/run.googleapis.com%2Frequests"
    assert entry.http_request.latency.ToJsonString() == "0.004300s"
    assert [request(status, 0).severity for status in (200, 304, 404, 500)] == [200, 200, 400, 500]
    assert dict(entry.resource.labels) == {
        "project_id": "demo", "location": "europe-west1", "service_name": "emergence-app", "revision_name": "emergence-app-00001-abc",
        "configuration_name": "emergence-app",
    }  # fmt: skip
    assert dict(entry.labels) == {"instanceId": "i-1", "team": "memory"}


def test_a_remark_of_the_system_is_in_its_own_log() -> None:
    entry = entries.system_entry(*WHO, "WARNING", "Container called exit(1).", "2025-10-09T08:30:00Z")
    assert (entry.log_name, entry.severity) == ("projects/demo/logs/run.googleapis.com%2Fvarlog%2Fsystem", 400)


def test_a_filter_is_evaluated_and_a_bad_one_is_refused_with_its_place(store: LogStore, logging: Any) -> None:
    store.write([request(200, 1), request(503, 2), line("Worker 0 started", 3)])
    answer = logging.list_log_entries(request={"resource_names": [PROJECT], "filter": "severity>=ERROR AND httpRequest.status=503"})
    assert [entry.http_request.status for entry in answer] == [503]
    with pytest.raises(exceptions.InvalidArgument, match="syntax error at line 2, column 3, token '\\)'"):
        logging.list_log_entries(request={"resource_names": [PROJECT], "filter": "severity>=ERROR\n  )"})


@pytest.mark.parametrize(
    "text",
    [
        "resource.labels.service_name = EMERGENCE-app AND resource.labels.location = Europe-West1",
        "resource.labels.revision_name = emergence-app-00001-abc severity > INFO",
        "severity = WARNING",
        "severity <= 200",
        "NOT severity >= ERROR",
        "severity >= ERROR OR resource.labels.service_name = other",
        'timestamp > "2025-10-09T08:53:21Z" timestamp <= "2025-10-09T08:53:23Z"',
        'timestamp = "2025-10-09T08:53:22Z"',
        'logName = ("projects/demo/logs/run.googleapis.com%2Frequests" OR "projects/demo/logs/run.googleapis.com%2Fstdout")',
        'logName = "PROJECTS/demo/logs/run.googleapis.com%2fstdout" resource.type = Cloud_Run_Revision',
        'resource.labels.service_name = "ｅmergence-app"',
    ],
)
def test_the_store_gives_exactly_what_the_filter_lets_through(store: LogStore, text: str) -> None:
    other = entries.line_entry("demo", "us-central1", "other", "other-1", "i-2", "stdout", "elsewhere", 1_760_000_002.0)
    every = [*(request(status, at) for at, status in enumerate((200, 404, 503, 200))), line("a line", 2.5), other]
    store.write(every)
    wanted = {entry.insert_id for entry in every if logfilter.compile(text)(entry)}
    assert wanted
    assert {entry.insert_id for entry in store.list([PROJECT], text).entries} == wanted


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"page_size": 1001}, "between 0 and 1000"),
        ({"page_size": -1}, "between 0 and 1000"),
        ({"order_by": "severity"}, "must be 'timestamp asc' or 'timestamp desc'"),
        ({"page_token": "made up"}, "page_token is not of this request"),
        ({"resource_names": []}, "At least one resource name"),
        ({"resource_names": ["demo"]}, "Invalid resource name: 'demo'"),
        ({"resource_names": [f"projects/p{number}" for number in range(101)]}, "at most 100"),
        ({"filter": "severity>=" + "9" * 30}, "is not a severity"),
        ({"filter": "severity<" + "1" * 5000}, "Invalid filter at line 1, column 10"),
        ({"filter": 'textPayload=~"' + "x{1000}" * 2000 + '"'}, "too large"),
        ({"order_by": "x" * 50_000}, "order_by is 'x{1000}"),
    ],
)
def test_a_bad_list_request_is_refused_with_a_reason(store: LogStore, logging: Any, wrong: dict[str, Any], says: str) -> None:
    store.write([line("a", 0)])
    with pytest.raises(exceptions.InvalidArgument, match=says):
        logging.list_log_entries(request={"resource_names": [PROJECT], **wrong})


def test_a_page_token_goes_on_where_the_page_ended_even_when_entries_arrive_meanwhile(store: LogStore, logging: Any) -> None:
    store.write([line(str(number), number) for number in range(10)])
    first = logging.list_log_entries(request={"resource_names": [PROJECT], "page_size": 4})
    page = next(iter(first.pages))
    store.write([line("before", -1), line("after", 99)])
    rest = logging.list_log_entries(request={"resource_names": [PROJECT], "page_size": 50, "page_token": page.next_page_token})
    assert texts(page.entries) + texts(rest) == [*map(str, range(10)), "after"]
    with pytest.raises(exceptions.InvalidArgument, match="not of this request"):
        logging.list_log_entries(request={"resource_names": [PROJECT], "filter": "x", "page_token": page.next_page_token})


def test_a_page_token_is_good_for_a_day(store: LogStore) -> None:
    store.write([line(str(number), number) for number in range(3)])
    token = store.list([PROJECT], page_size=1).next_page_token
    clock.put_off(23 * 3600)
    try:
        assert texts(store.list([PROJECT], page_token=token).entries) == ["1", "2"]
        clock.put_off(25 * 3600)
        with pytest.raises(BadQuery, match="page_token has expired"):
            store.list([PROJECT], page_token=token)
    finally:
        clock.put_off(0)


def test_a_search_that_takes_long_gives_short_pages_and_the_place_to_go_on_from(tmp_path: Path) -> None:
    with contextlib.closing(LogStore(tmp_path / "logs.db", search_s=0)) as store:
        store.write([line(str(number), number) for number in range(5)])
        page, found = store.list([PROJECT], "textPayload=3"), list[str]()
        while page.next_page_token:
            found += texts(page.entries)
            page = store.list([PROJECT], "textPayload=3", page_token=page.next_page_token)
        assert found + texts(page.entries) == ["3"]


def test_the_default_page_has_fifty_entries_and_the_last_one_no_token(store: LogStore, logging: Any) -> None:
    store.write([line(str(number), number) for number in range(100)])
    pages = list(logging.list_log_entries(request={"resource_names": [PROJECT]}).pages)
    assert [len(page.entries) for page in pages] == [50, 50]


def test_a_page_of_big_entries_is_shorter_so_that_it_fits_into_a_message(store: LogStore, logging: Any) -> None:
    store.write([line(f"{number} " + "x" * 200_000, number) for number in range(40)])
    answer = logging.list_log_entries(request={"resource_names": [PROJECT], "page_size": 1000})
    assert [entry.text_payload.partition(" ")[0] for entry in answer] == [str(number) for number in range(40)]


def test_other_projects_are_not_listed(store: LogStore, logging: Any) -> None:
    store.write([entries.line_entry("demo2", *WHO[1:], "stdout", "theirs", 1.0), line("ours", 1)])
    assert texts(logging.list_log_entries(request={"resource_names": [PROJECT]})) == ["ours"]


def test_written_entries_get_the_defaults_of_their_request_and_duplicates_are_dropped(logging: Any) -> None:
    stamp = timestamp_pb2.Timestamp(seconds=1_760_000_000)
    given = [
        types.LogEntry(text_payload="one", insert_id="same", timestamp=stamp, labels={"own": "kept"}),
        types.LogEntry(text_payload="one again", insert_id="same", timestamp=stamp),
        types.LogEntry(text_payload="two", log_name=f"{PROJECT}/logs/other"),
    ]
    name = f"{PROJECT}/logs/relais"
    for _ in range(2):
        logging.write_log_entries(
            log_name=name, resource=MonitoredResource(type="generic_task"), labels={"own": "lost", "all": "yes"}, entries=given[:2]
        )
    logging.write_log_entries(log_name=name, resource=None, labels={}, entries=given[2:])
    one, two = logging.list_log_entries(request={"resource_names": [PROJECT]})
    assert (one.text_payload, one.log_name, one.resource.type) == ("one", name, "generic_task")
    assert dict(one.labels) == {"own": "kept", "all": "yes"}
    assert (two.log_name, two.resource.type, bool(two.insert_id)) == (f"{PROJECT}/logs/other", "global", True)
    assert abs(two.timestamp.timestamp() - time.time()) < 60
    assert two.receive_timestamp == two.timestamp


def test_a_write_is_answered_when_it_is_on_the_disk(logging: Any, tmp_path: Path) -> None:
    logging.write_log_entries(
        log_name=f"{PROJECT}/logs/relais", resource=None, labels={}, entries=[types.LogEntry(text_payload="one", insert_id="same")]
    )
    with contextlib.closing(sqlite3.connect(tmp_path / "logs.db")) as file:
        assert file.execute("SELECT insert_id FROM entries").fetchall() == [("same",)]


def test_one_bad_entry_stops_all_unless_partial_success_is_asked_for(logging: Any) -> None:
    given = [types.LogEntry(text_payload="good"), types.LogEntry(text_payload="x" * 300_000), types.LogEntry(log_name="nonsense")]
    wanted = {"log_name": f"{PROJECT}/logs/relais", "entries": given}
    with pytest.raises(exceptions.InvalidArgument, match=r"entries\[1\]: Log entry with size 29\d\.\dK exceeds maximum size of 256.0K"):
        logging.write_log_entries(request=wanted)
    assert not list(logging.list_log_entries(request={"resource_names": [PROJECT]}))
    with pytest.raises(exceptions.InvalidArgument) as caught:
        logging.write_log_entries(request={**wanted, "partial_success": True})
    assert texts(logging.list_log_entries(request={"resource_names": [PROJECT]})) == ["good"]
    trailing = dict(caught.value.errors[0].trailing_metadata())
    (detail,) = status_pb2.Status.FromString(trailing["grpc-status-details-bin"]).details
    partial = types.WriteLogEntriesPartialErrors.pb()()
    assert detail.Unpack(partial)
    assert set(partial.log_entry_errors) == {1, 2}


def test_a_dry_run_writes_nothing(logging: Any) -> None:
    given = [types.LogEntry(text_payload="x")]
    logging.write_log_entries(request={"log_name": f"{PROJECT}/logs/relais", "entries": given, "dry_run": True})
    assert not list(logging.list_log_entries(request={"resource_names": [PROJECT]}))


def test_logs_are_listed_by_name_and_can_be_deleted(store: LogStore, logging: Any) -> None:
    store.write([line("out", 1), line("err", 1, "stderr"), request(200, 1)])
    names = [f"{PROJECT}/logs/run.googleapis.com%2F{log}" for log in ("requests", "stderr", "stdout")]
    assert list(logging.list_logs(request={"parent": PROJECT, "page_size": 2})) == names
    logging.delete_log(log_name=names[0])
    assert list(logging.list_logs(parent=PROJECT)) == names[1:]
    with pytest.raises(exceptions.NotFound):
        logging.delete_log(log_name=names[0])


def test_the_oldest_entries_go_when_there_are_too_many_or_they_are_too_big(tmp_path: Path) -> None:
    for limits in ({"max_rows": 100}, {"max_bytes": 100 * line("0" * 4, 0).ByteSize()}):
        store = LogStore(tmp_path / f"{next(iter(limits))}.db", **limits)
        for start in range(0, 400, 50):
            store.write([line(f"{number:04}", number) for number in range(start, start + 50)])
            store.flush()
        kept = texts(store.list([PROJECT], page_size=1000).entries)
        assert 80 <= len(kept) <= 105
        assert kept == [f"{number:04}" for number in range(400 - len(kept), 400)]
        store.close()


def test_a_time_beyond_what_a_column_holds_is_kept_and_sorted_last(store: LogStore) -> None:
    store.write([line('{"message":"far","time":"9999-12-31T23:59:59Z"}', 0), line("now", 0)])
    assert texts(store.list([PROJECT]).entries) == ["now", "far"]
    assert texts(store.list([PROJECT], 'timestamp > "2300-01-01T00:00:00Z" OR textPayload = far').entries) == ["far"]


def test_a_killed_process_leaves_a_store_that_opens_with_what_was_flushed(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib\nfrom localcloud.logs import entries\nfrom localcloud.logs.service import LogStore\n"
        "store = LogStore(pathlib.Path(sys.argv[1]))\nnumber = 0\n"
        "while True:\n"
        "    store.write([entries.line_entry('demo', 'r', 's', 's-1', 'i', 'stdout', str(number), float(number))])\n"
        "    number += 1\n"
        "    if number % 500 == 0:\n        store.flush()\n        print(number, flush=True)\n"
    )
    path = tmp_path / "logs.db"
    with subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        flushed = [int(process.stdout.readline()) for _ in range(4)][-1]
        os.kill(process.pid, signal.SIGKILL)
    store = LogStore(path)
    found, token = [], ""
    while page := store.list([PROJECT], page_size=1000, page_token=token):
        found += texts(page.entries)
        if not (token := page.next_page_token):
            break
    store.close()
    assert len(found) >= flushed
    assert found == [str(number) for number in range(len(found))]


def test_a_full_disk_keeps_the_entries_in_memory_until_there_is_room(store: LogStore, logging: Any) -> None:
    store.flush()
    store._writer.execute("PRAGMA max_page_count = 1")  # the file may not grow: SQLite says "database or disk is full"
    big = [line("x" * 5000, number) for number in range(200)]
    store.write(big)
    with pytest.raises(exceptions.ServiceUnavailable, match="Is the disk full"):
        logging.list_log_entries(request={"resource_names": [PROJECT]}, retry=None)
    store._writer.execute("PRAGMA max_page_count = 1000000")
    assert len(store.list([PROJECT], page_size=1000).entries) == 200


def test_among_a_hundred_thousand_entries_a_time_and_a_service_are_found_quickly(store: LogStore) -> None:
    for number in range(100_000):
        service = f"svc-{number % 5}"
        store.write([entries.line_entry("demo", "r", service, f"{service}-1", "i", "stdout", str(number), 1_760_000_000.0 + number / 10)])
    store.flush()
    text = 'timestamp>="2025-10-09T11:00:00Z" AND resource.labels.service_name="svc-2" AND severity>=DEFAULT'
    began = time.perf_counter()
    page = store.list([PROJECT], text, "timestamp desc", 1000)
    spent = time.perf_counter() - began
    assert (len(page.entries), page.entries[0].text_payload) == (1000, "99997")
    assert spent < 0.5, f"{spent:.3f} s"


def test_writing_an_entry_costs_a_request_less_than_a_millisecond(store: LogStore) -> None:
    spent = []
    for number in range(500):
        entry = request(200, number)
        began = time.perf_counter()
        store.write([entry])
        spent.append(time.perf_counter() - began)
    assert sorted(spent)[250] < 0.001
