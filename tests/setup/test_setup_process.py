"""Background processes: recorded, found again, ended with all that they started, and never mistaken for another's."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from setup.process import Service, born, ensure, running, start, stop
from setup.trouble import Trouble

SLEEPER = "import time; time.sleep(300)"


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Makes a service of a Python text; what still runs at the end is ended."""
    made: list[Service] = []

    def make(text: str = SLEEPER, *, healthy: Callable[[], bool] = lambda: True, key: str = "", ready_within: float = 10) -> Service:
        made.append(
            Service(
                name="the sleeper",
                command=[sys.executable, "-c", text],
                log=tmp_path / "log",
                record=tmp_path / "run" / "sleeper.json",
                healthy=healthy,
                key=key,
                ready_within=ready_within,
                ends_within=1,
            )
        )
        return made[-1]

    yield make
    for one in made:
        stop(one.record, 1)


def bring_up(service: Service, said: list[str] | None = None) -> bool:
    return ensure(service, os.environ, service.log.parent, (said if said is not None else []).append)


def until(true: Callable[[], bool]) -> bool:
    end = time.monotonic() + 10
    while not true() and time.monotonic() < end:
        time.sleep(0.02)
    return true()


def test_a_service_that_runs_and_is_well_is_left_alone(service: Callable[..., Service]) -> None:
    one = service()
    assert bring_up(one) is True
    pid = running(one.record)["pid"]
    assert bring_up(one) is False
    assert running(one.record)["pid"] == pid


def test_one_that_died_is_started_again(service: Callable[..., Service]) -> None:
    one = service()
    bring_up(one)
    os.kill(int(running(one.record)["pid"]), signal.SIGKILL)
    assert until(lambda: not running(one.record))
    assert bring_up(one) is True
    assert running(one.record)


def test_one_that_is_out_of_date_is_started_anew_and_said(service: Callable[..., Service]) -> None:
    bring_up(service(key="1"))
    said: list[str] = []
    assert bring_up(service(key="2"), said) is True
    assert said == ["the sleeper is started anew (out of date)"]


def test_it_has_a_session_of_its_own_and_can_be_interrupted(service: Callable[..., Service]) -> None:
    one = service("import signal, os; print(os.getsid(0), signal.getsignal(signal.SIGINT).__name__, flush=True); " + SLEEPER)
    bring_up(one)
    assert until(lambda: one.log.read_text().endswith(f"\n{running(one.record)['pid']} default_int_handler\n"))


def test_one_that_ends_at_once_is_a_trouble_with_the_end_of_its_log(service: Callable[..., Service]) -> None:
    with pytest.raises(Trouble) as trouble:
        bring_up(service("raise SystemExit('no such table: blocks')", healthy=lambda: False))
    assert "the sleeper ended" in trouble.value.what
    assert any("no such table: blocks" in line for line in trouble.value.lines("sleeper"))


def test_one_that_never_answers_is_given_up_and_ended(service: Callable[..., Service]) -> None:
    one = service(healthy=lambda: False, ready_within=0.5)
    with pytest.raises(Trouble, match="did not answer within"):
        bring_up(one)
    assert not running(one.record)


def test_the_id_of_somebody_elses_process_is_never_signalled(service: Callable[..., Service]) -> None:
    one = service()
    stranger = subprocess.Popen([sys.executable, "-c", SLEEPER])
    try:
        one.record.parent.mkdir()
        one.record.write_text(json.dumps({"pid": str(stranger.pid), "started": "1", "key": ""}))
        assert running(one.record) == {}
        assert stop(one.record, 1) is False
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(5)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "x"}', '{"pid": "1"}', "null"])
def test_a_damaged_record_counts_as_none(service: Callable[..., Service], text: str) -> None:
    one = service()
    one.record.parent.mkdir()
    one.record.write_text(text)
    assert running(one.record) == {}


CHILD_WITH_ITS_OWN_SESSION = f"""
import subprocess, sys, signal, time
child = subprocess.Popen([sys.executable, "-c", "{SLEEPER}"], start_new_session=True)
print("child", child.pid, flush=True)
signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(300)
"""


@pytest.mark.parametrize("children_first", [True, False], ids=["children first", "itself first"])
def test_what_it_started_ends_with_it_even_in_another_session(service: Callable[..., Service], children_first: bool) -> None:
    one = service(CHILD_WITH_ITS_OWN_SESSION)
    start(one, os.environ, one.log.parent)
    assert until(lambda: "child" in one.log.read_text().splitlines()[-1])
    child = int(one.log.read_text().split()[-1])
    assert born(child)
    assert stop(one.record, 0.5, children_first=children_first) is True
    assert not born(child)
    assert not one.record.exists()


# As a worker does: told to end, it kills its runs.
IMPATIENT_PARENT = f"""
import subprocess, sys, signal, time
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), sys.exit()))
child.wait()
{SLEEPER}
"""
TIDY_CHILD = """
import signal, sys, time
def tidy(*_):
    time.sleep(0.5)
    print("tidied up", flush=True)
    sys.exit()
signal.signal(signal.SIGTERM, tidy)
print("ready to go", flush=True)
time.sleep(300)
"""


def test_children_that_end_first_have_the_time_to_tidy_up(service: Callable[..., Service]) -> None:
    one = service(IMPATIENT_PARENT)
    one = replace(one, command=[*one.command, TIDY_CHILD])
    start(one, os.environ, one.log.parent)
    assert until(lambda: one.log.read_text().endswith("ready to go\n"))
    assert stop(one.record, 10, children_first=True) is True
    assert one.log.read_text().endswith("tidied up\n")
