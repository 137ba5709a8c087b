"""Production comes back: whatever ends a release, the recorded split serves again, and nobody else's decision is undone."""

import contextlib
import shutil
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import httpx
import pytest
from between import Between, between
from google.cloud import run_v2
from team import Clients, Team, eventually

from flows.rollback import rollback
from flows.watch import Place, watch
from relais import rollout

LONG = {"canary": {"steps": [50], "bake": "6s", "deadline": "1h", "probes": None}}  # nobody asks: it waits


@dataclass
class Rolling:
    """A release in a process of its own, in the middle of a canary step."""

    team: Team
    first: str
    process: "subprocess.Popen[bytes]"

    @property
    def candidate(self) -> str:
        return str(self.team.rollout()["candidate"])

    def is_rolling(self) -> bool:
        assert self.process.poll() is None, self.log
        return self.team.rollout().get("phase") == "rolling"

    @property
    def log(self) -> str:
        return self.team.root.with_name("release.log").read_text(errors="replace")

    def ends(self) -> tuple[str, str]:
        """The name of its final state, and its sentence; without a traceback in its log (but that of the script that called it)."""
        self.process.wait(40)
        named = {"name": {"like_": self.team.service.name}, "parent_task_run_id": {"is_null_": True}}
        wanted = {"flow_runs": named, "flows": {"name": {"any_": ["release"]}}, "sort": "START_TIME_ASC"}
        run, *_ = httpx.post(f"{self.team.api}/flow_runs/filter", json=wanted, timeout=10).json()
        told, _, _ = self.log.rpartition("Finished in state")
        prefects_own = "Task run is not set" in told  # the signal came while Prefect was registering a task run
        assert prefects_own or "Traceback" not in told, told
        return run["state"]["name"], str(run["state"]["message"])


def begin(team: Team) -> Rolling:
    """A release that will stay at its first step."""
    team.release_file(**LONG)
    return Rolling(team, team.baseline(), team.start_release())


RUNS = ("cut off", "SIGTERM", "SIGINT", "SIGHUP", "SIGTERM twice", "a person", "a rollback")


@pytest.fixture(scope="module")
def bridge(cloud: Any) -> Iterator[tuple[contextlib.ExitStack, str]]:
    """A way to the cloud that can be closed, and its address."""
    with contextlib.ExitStack() as opened:
        yield opened, opened.enter_context(between(cloud.host))[1]


@pytest.fixture(scope="module")
def runs(
    open_shop: Callable[..., Team], bridge: tuple[object, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Rolling]]:
    """Releases of different teams in the middle of a step, all at once: a release takes seconds to get there."""
    begun: dict[str, Rolling] = {}
    try:
        for name in RUNS:
            with pytest.MonkeyPatch.context() as environment:
                team = open_shop(tmp_path_factory.mktemp("rolling"), environment)
                if name == "cut off":
                    environment.setenv("CLOUDRUN_EMULATOR_HOST", bridge[1])
                begun[name] = begin(team)
        for one in begun.values():
            eventually(one.is_rolling, 90)
        yield begun
    finally:
        for one in begun.values():
            if one.process.poll() is None:
                one.process.kill()
                one.process.wait(10)


@pytest.fixture
def at(runs: dict[str, Rolling], cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Rolling]:
    """One of them, with its environment for what the test itself runs."""

    def one(name: str) -> Rolling:
        found = runs[name]
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)
        monkeypatch.setenv("RELAIS_HOME", str(found.team.home))
        return found

    return one


def looked_after(team: Team) -> None:
    """Five minutes later, as far as the annotation tells, and the watch has been there."""
    if team.rollout()["phase"] != "done":
        team.annotate(lease_until="2020-01-01T00:00:00Z")
        state = watch([Place(project=team.service.project, region=team.service.region)], return_state=True)
        assert state.is_completed(), state
    assert team.rollout()["phase"] == "done"
    assert team.tags() == {}


# -- ended from outside ----------------------------------------------------------------------------------------------------


def test_a_second_release_is_refused_while_the_first_one_rolls_and_told_who_and_since_when(at: Callable[[str], Rolling]) -> None:
    """Rule 7."""
    run = at("SIGTERM")
    before = run.team.get().etag
    state = run.team.release()
    assert state.name == "Refused"
    found = run.team.rollout()
    for part in (f"release {found['release']} of ", "holds the service since", "(rolling, owner", "cancel its run; its lease ends at"):
        assert part in str(state.message), state.message
    assert run.team.get().etag == before
    assert run.process.poll() is None


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGTERM twice"])
def test_traffic_is_back_after(at: Callable[[str], Rolling], name: str) -> None:
    """Rules 14 and 16."""
    run = at(name)
    assert run.team.who_serves() == {run.first: 50, run.candidate: 50}
    number = getattr(signal, name.partition(' ')[0])
    for _ in name.split():
        run.process.send_signal(number)
    word, message = run.ends()
    assert word == "Interrupted"
    assert f"traffic is back: {run.first} 100 %" in message
    assert run.team.who_serves() == {run.first: 100}
    looked_after(run.team)
    assert run.team.who_serves() == {run.first: 100}


def test_a_run_that_cannot_put_traffic_back_says_so_and_the_watch_does_it(
    at: Callable[[str], Rolling], bridge: tuple[contextlib.ExitStack, str]
) -> None:
    run = at("cut off")
    bridge[0].close()  # nobody answers at that address any more
    run.process.send_signal(signal.SIGTERM)
    word, message = run.ends()
    assert word == "Interrupted"
    assert "TRAFFIC IS NOT BACK: " in message
    assert f"Recorded split: {run.first} 100 %. Run the rollback deployment now; the watch does the same" in message
    assert run.team.who_serves() == {run.first: 50, run.candidate: 50}
    looked_after(run.team)
    assert run.team.who_serves() == {run.first: 100}


@pytest.mark.parametrize("ended", ["a bad candidate", "SIGTERM"])
def test_while_prefects_server_does_not_answer_traffic_is_back_at_once_after(team: Team, ended: str) -> None:
    """The beginning and the end of a subflow wait for the server, for a minute and more; users do not."""
    first = team.baseline()
    team.release_file(canary={"bake": "6s", "deadline": "1h"})
    if ended == "a bad candidate":
        team.change_env(FAULT_ERROR_RATE="1")
    with Slow(urlsplit(team.api).port or 0) as server:
        team.api = f"http://127.0.0.1:{server.port}/api"
        run = Rolling(team, first, team.start_release())
        try:
            eventually(run.is_rolling, 60)
            server.freeze()
            if ended == "SIGTERM":
                run.process.send_signal(signal.SIGTERM)
            eventually(lambda: team.rollout()["phase"] == "restoring", 15)
            assert team.who_serves() == {first: 100}
        finally:
            run.process.kill()
            run.process.wait(10)


class Slow:
    """A server's port, until it answers nobody any more."""

    def __init__(self, behind: int) -> None:
        self._behind, self._open, self._pairs = behind, threading.Event(), list[socket.socket]()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._open.set()

    def __enter__(self) -> "Slow":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self._open.set()
        for one in self._pairs:
            one.close()

    def freeze(self) -> None:
        """From now on it listens, and nothing comes back."""
        self._open.clear()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._behind))
                self._pairs += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                self._open.wait()
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


# -- the wheel is somebody else's ------------------------------------------------------------------------------------------


def test_a_frozen_run_does_not_undo_what_a_person_wrote_meanwhile(at: Callable[[str], Rolling]) -> None:
    """Rule 2."""
    run = at("a person")
    candidate = run.candidate
    run.process.send_signal(signal.SIGSTOP)
    run.team.split({run.first: 20, candidate: 80})
    version = run.team.get().etag
    run.process.send_signal(signal.SIGTERM)
    run.process.send_signal(signal.SIGCONT)
    word, message = run.ends()
    assert word == "Interrupted"
    assert f"somebody else moved traffic: it is {run.first} 20 %, {candidate} 80 %" in message
    assert run.team.get().etag == version
    assert run.team.who_serves() == {run.first: 20, candidate: 80}


def test_a_frozen_run_that_wakes_up_after_a_take_over_moves_nothing_and_says_who_holds_it(at: Callable[[str], Rolling]) -> None:
    """Rule 2."""
    run = at("a rollback")
    candidate = run.candidate
    run.process.send_signal(signal.SIGSTOP)
    assert rollback(run.team.service, because="it smells", return_state=True).name == "RolledBack"
    run.team.split({candidate: 100})  # and then somebody decided otherwise
    version = run.team.get().etag
    run.process.send_signal(signal.SIGCONT)
    word, message = run.ends()
    assert word == "Interrupted"
    assert "is driven by rollback" in message
    assert "(epoch 2) now" in message
    assert run.team.get().etag == version
    assert run.team.who_serves() == {candidate: 100}
    # who took the wheel has told the end, and that stays
    assert run.team.record.state == "RolledBack"
    (row,) = [line for line in run.team.pushed_file("docs/README.md").splitlines() if candidate in line]
    assert "Rolled back" in row


# -- what happens on the way to the cloud ----------------------------------------------------------------------------------


@pytest.fixture
def way(team: Team, cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Between]:  # noqa: ARG001 - its environment comes first
    """The way between this process and the cloud."""
    with between(cloud.host) as (found, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        yield found


def at_the_first_move(way: Between, act: Callable[[], object]) -> None:
    """Between the read and the write of the first move of traffic (the deploy is the write before it)."""
    at_write(2, way, act)


def at_write(number: int, way: Between, act: Callable[[], object]) -> None:
    """Ahead of the so-many-th write: 1 deploy, 2 the step, 3 100 %, 4 settled, 5 LATEST where the file wants it."""
    way.before("UpdateService", act if number == 1 else lambda: at_write(number - 1, way, act))


def test_a_move_whose_answer_is_lost_is_not_made_twice(team: Team, way: Between) -> None:
    """Rule 4."""
    team.baseline()
    way.lose("UpdateService", times=100)
    state = team.release()
    assert state.name == "Promoted", state.message
    assert way.count("UpdateService") == 4  # deploy, 50 %, 100 %, settled
    assert team.rollout()["seq"] == 4
    assert team.who_serves() == {team.rollout()["candidate"]: 100}


def test_a_foreign_annotation_written_in_between_survives_and_the_move_is_made_once_more(team: Team, way: Between) -> None:
    """Rule 5."""
    first = team.baseline()
    team.split({first: 100}, {"ours": first})
    at_the_first_move(way, lambda: note(team))
    state = team.release()
    assert state.name == "Promoted", state.message
    assert team.get().annotations["example.org/owner"] == "Ada"
    assert way.count("UpdateService") == 4
    assert len(team.revisions()) == 2
    assert team.tags()["ours"] == first


def note(team: Team, name: str = "example.org/owner") -> None:
    """Somebody else's annotation, by the official client."""
    found = team.get()
    wanted = run_v2.Service(name=found.name, annotations={**found.annotations, name: "Ada"})
    team.clients.services.update_service(request={"service": wanted, "update_mask": {"paths": ["annotations"]}}, timeout=10).result(20)


def test_a_log_service_that_refuses_during_a_step_ends_with_the_split_back(team: Team, way: Between) -> None:
    first = team.baseline()
    why = (grpc.StatusCode.PERMISSION_DENIED, "Permission 'logging.logEntries.list' denied on resource (or it may not exist).")
    at_the_first_move(way, lambda: way.refuse("ListLogEntries", *why))
    state = team.release()
    assert state.name == "RolledBack"
    assert "logging.logEntries.list" in str(state.message)
    assert f"traffic is back: {first} 100 %" in str(state.message)
    assert team.who_serves() == {first: 100}
    assert team.rollout()["phase"] == "done"
    assert team.tags() == {}


def test_an_annotation_that_nobody_can_read_any_more_is_no_refusal_once_users_were_moved(team: Team, way: Between) -> None:
    first = team.baseline()
    at_the_first_move(way, lambda: way.before("ListLogEntries", lambda: note(team, rollout.ANNOTATION)))
    state = team.release()
    assert state.name == "Failed"
    assert "TRAFFIC IS NOT BACK: the annotation relais.dev/rollout cannot be read" in str(state.message)
    assert team.who_serves().keys() > {first}


def test_what_cannot_be_read_or_written_after_the_promotion_is_told_and_does_not_unsay_it(team: Team, way: Between) -> None:
    team.release_file(canary={"finish": "latest"})
    team.baseline()

    def gone() -> None:
        way.refuse("UpdateService", grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        way.refuse("ListRevisions", grpc.StatusCode.PERMISSION_DENIED, "Permission 'run.revisions.list' denied.")

    at_write(5, way, gone)
    state = team.release()
    assert state.name == "Promoted", state.message
    assert "traffic stays pinned" in str(state.message)
    assert team.who_serves() == {team.rollout()["candidate"]: 100}
    assert (team.record.state, team.record.revisions) == ("Promoted", None)


def test_who_may_call_the_service_is_no_question_of_traffic(team: Team, way: Between) -> None:
    """The guard must not fail for an answer that it does not need."""
    team.baseline()
    found = team.get()
    wanted = run_v2.Service(name=found.name, invoker_iam_disabled=False)
    team.clients.services.update_service(request={"service": wanted, "update_mask": {"paths": ["invoker_iam_disabled"]}}).result(20)
    policy = {"bindings": [{"role": "roles/run.invoker", "members": ["allUsers"]}]}
    team.clients.services.set_iam_policy(request={"resource": found.name, "policy": policy}, timeout=10)
    at_the_first_move(way, lambda: way.refuse("GetIamPolicy", grpc.StatusCode.UNAVAILABLE, "Connection reset by peer"))
    state = team.release()
    assert state.name == "Promoted", state.message


def test_what_serves_is_judged_once_the_service_has_settled(team: Team, way: Between) -> None:
    """A move is done when it is accepted; who serves follows some seconds later."""
    first, looks = team.baseline(), iter(range(100))

    def behind(answer: bytes) -> bytes:
        found: run_v2.Service = run_v2.Service.deserialize(answer)
        if next(looks) < 4:
            found.reconciling = True
            found.traffic_statuses = [run_v2.TrafficTargetStatus(revision=first, percent=100)]
        return run_v2.Service.serialize(found)

    at_write(3, way, lambda: way.change("GetService", behind))
    state = team.release()
    assert state.name == "Promoted", state.message


def test_the_lease_is_kept_while_a_smoke_command_takes_its_time(team: Team) -> None:
    smoke = {"name": "slow", "run": "until test -f ../go; do sleep 0.1; done", "timeout": "60s"}
    team.release_file(canary=None, validate={"smoke": [smoke]})
    team.baseline()
    run = Rolling(team, "", team.start_release())
    try:
        eventually(run.is_rolling, 60)
        nearly = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
        team.annotate(lease_until=nearly)
        eventually(lambda: datetime.fromisoformat(team.rollout()["lease_until"]) > datetime.now(UTC) + timedelta(minutes=4), 25)
        team.write("../go", "")
        assert run.ends()[0] == "Promoted"
    finally:
        run.process.kill()
        run.process.wait(10)


def test_a_repository_that_is_deleted_during_a_step_costs_its_documents_alone(team: Team, way: Between) -> None:
    team.baseline()
    at_the_first_move(way, lambda: shutil.rmtree(team.root))
    state = team.release()
    assert state.name == "Promoted", state.message
    assert not team.root.exists()
    assert [(finding.outcome, finding.detail) for finding in team.record.documents or ()] == [("failed", f"{team.root} is gone")]


# -- the cloud goes away ---------------------------------------------------------------------------------------------------


def test_a_cloud_that_is_away_for_some_seconds_does_not_end_a_release(
    team: Team, new_cloud: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud = new_cloud()
    team = Team(tmp_path / "own" / "shop", Clients(cloud.host), team.image, team.base_image, team.home, team.api)
    team.lay_out()
    team.baseline()
    team.release_file(canary={"deadline": "60s"})

    def away() -> None:
        cloud.kill()
        threading.Timer(3, cloud.start).start()

    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        at_the_first_move(way, lambda: way.before("ListLogEntries", away))
        state = team.release()
    assert state.name == "Promoted", state.message
    assert team.who_serves() == {team.rollout()["candidate"]: 100}
