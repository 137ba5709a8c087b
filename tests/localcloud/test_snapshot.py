"""States that come from a file: scaled to zero, served at once, refused with a place where something is wrong."""

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from clouds import PARENT, ROOT, Cloud, eventually, pinned
from google.cloud import run_v2
from states import given

from localcloud import snapshot
from localcloud.form import Unusable
from localcloud.server import offline

PENDING = [{"type": "Ready", "state": "CONDITION_PENDING"}]


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "localcloud", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def send(cloud: Cloud, data: bytes) -> tuple[int, dict[str, Any]]:
    address = (cloud.state / "admin").read_text().strip()
    answer = httpx.post(f"http://{address}/import", content=data, headers={"Content-Type": "application/json"}, timeout=60)
    return answer.status_code, answer.json()


def test_an_imported_service_serves_when_it_is_asked_and_not_before(own_cloud: Callable[..., Cloud], web_image: str) -> None:
    cloud = own_cloud()
    code, told = send(cloud, json.dumps(given("real", image=web_image) | {"policies": {}}).encode())
    assert (code, told) == (201, {"imported": "1 services, 2 revisions, 1 log entries"})
    assert send(cloud, json.dumps(given("nowhere")).encode())[0] == 201
    assert not cloud.containers()
    service = cloud.get("real")
    assert (service.terminal_condition.state.name, service.annotations["team"]) == ("CONDITION_SUCCEEDED", "x")
    assert [(each.revision, each.percent, each.tag) for each in service.traffic_statuses] == [("real-a", 90, ""), ("real-b", 10, "next")]
    assert httpx.get(service.traffic_statuses[1].uri, timeout=30).text == "real-b"
    assert httpx.get(cloud.get("nowhere").uri, timeout=30).status_code == 503
    request = {"resource_names": ["projects/test-project"], "filter": 'logName="projects/test-project/logs/app"'}
    assert [each.text_payload for each in cloud.logging.list_log_entries(request=request)] == ["hello"]
    shifted = cloud.update(run_v2.Service(name=service.name, traffic=[pinned("real-b", 100)]), "traffic")
    assert httpx.get(shifted.uri, timeout=30).text == "real-b"
    code, told = send(cloud, json.dumps(given("new", "real")).encode())
    assert (code, "real exists already" in told["what"]) == (400, True)
    assert {each.name.rsplit("/", 1)[1] for each in cloud.services.list_services(parent=PARENT)} == {"real", "nowhere"}


def test_an_imported_service_serves_although_the_log_has_no_room_for_its_entries(own_cloud: Callable[..., Cloud], web_image: str) -> None:
    cloud = own_cloud()
    full = cloud.fault("disk-full", store="logs", times=0)
    code, told = send(cloud, json.dumps(given("real", image=web_image)).encode())
    assert (code, told) == (201, {"imported": "1 services, 2 revisions, 1 log entries"})
    assert httpx.get(cloud.get("real").uri, timeout=30).status_code == 200
    cloud.ask("DELETE", f"/faults/{full}")
    request = {"resource_names": ["projects/test-project"], "filter": 'logName="projects/test-project/logs/app"'}
    eventually(lambda: list(cloud.logging.list_log_entries(request=request)))


def test_a_state_goes_out_to_a_file_and_in_again(tmp_path: Path) -> None:
    (tmp_path / "in.json").write_text(json.dumps(given("one", "two")))
    done = run("import", str(tmp_path / "in.json"), "--state", str(tmp_path / "a"))
    assert (done.returncode, done.stdout) == (0, "imported 2 services, 4 revisions, 1 log entries\n")
    first = run("export", "--state", str(tmp_path / "a")).stdout
    (tmp_path / "out.json").write_text(first)
    assert run("import", str(tmp_path / "out.json"), "--state", str(tmp_path / "b")).returncode == 0
    assert json.loads(run("export", "--state", str(tmp_path / "b")).stdout) == json.loads(first)


def test_a_state_with_a_revision_that_waits_to_be_tried_does_not_go_out(tmp_path: Path) -> None:
    with offline(tmp_path) as (state, store):
        snapshot.write(snapshot.read(json.dumps(given("one"))), state, store)
        state.put_revision(replace(state.all_revisions()[0], phase="pending"))
    done = run("export", "--state", str(tmp_path))
    assert (done.returncode, done.stdout) == (1, "")
    assert "nothing was exported: " in done.stderr
    assert "It is still being deployed. Start the local cloud" in done.stderr


def test_entries_that_a_crash_kept_from_the_log_arrive_with_the_next_start_once(tmp_path: Path) -> None:
    taken = snapshot.read(json.dumps(given("one")))
    with offline(tmp_path) as (state, store):
        snapshot.write(taken, state, store)
        store.delete_log("projects/test-project/logs/app")  # as if the process had ended before the log had them
        bodies = [(each.SerializeToString(),) for each in taken.entries]
        state.connection.executemany("INSERT INTO arriving (body) VALUES (?)", bodies)
    for _ in range(2):
        with offline(tmp_path) as (_, store):
            assert [each.insert_id for each in store.list(["projects/test-project"]).entries] == ["one"]


def broken(what: Callable[[dict[str, Any]], Any]) -> str:
    found = given("one")
    what(found)
    return json.dumps(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{", "line 1, column 2: It is not JSON"),
        ("[]", "the file: It is not a JSON object."),
        ("[" * 100_000, "the file: It cannot be read: "),
        ("1" * 5000, "the file: It cannot be read: "),
        (broken(lambda it: it["services"][0].update(description="\ud800")), "services[0]: "),
        ('{"service": []}', "There is no 'service' here. It may have services, revisions, policies, entries."),
        (broken(lambda it: it["services"][0].update(nam="x")), "services[0]: "),
        (broken(lambda it: it["services"].append(it["services"][0])), "services[1]: "),
        (broken(lambda it: it["services"][0]["traffic"].pop()), f"services[0] ({PARENT}/services/one): "),
        (broken(lambda it: it["services"][0].update(labels={"a": "<b>"})), "/services/one): labels: the value of 'a' must"),
        (broken(lambda it: it["revisions"].pop()), "Its traffic goes to 'one-b', which is no ready revision."),
        (broken(lambda it: it["revisions"][0].update(name="x")), "revisions[0]: x is a revision of no service of this file."),
        (broken(lambda it: it["revisions"][0].update(timeout="soon")), "revisions[0]: "),
        (broken(lambda it: it["revisions"][0].update(conditions=PENDING)), "revisions (one-a): It was still being deployed."),
        (broken(lambda it: it.update(policies={"x": {}})), "policies (x): This is no service of this file."),
        (broken(lambda it: it["entries"].append({})), "entries[1]: It has no logName."),
    ],
)  # fmt: skip
def test_a_file_with_a_mistake_is_refused_with_its_place(text: str, told: str) -> None:
    with pytest.raises(Unusable) as error:
        snapshot.read(text)
    assert told in str(error.value)


def test_an_export_of_a_folder_that_is_no_state_is_refused_and_makes_none(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "localcloud", "export", "--state", str(tmp_path / "typo")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "is no state of a local cloud" in done.stderr
    assert not (tmp_path / "typo").exists()
