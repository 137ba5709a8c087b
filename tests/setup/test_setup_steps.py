"""Steps: their order, side by side where nothing forbids it, and a failure that says what to do."""

import threading
from pathlib import Path

import pytest

from setup.steps import Step, run
from setup.trouble import Trouble, remedy_for, tail


def test_each_step_is_shown_with_what_it_did_and_its_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    assert run([Step("venv", lambda: True), Step("engine", lambda: False)])
    shown = sorted(line.split() for line in capsys.readouterr().out.splitlines())
    assert shown == [["engine", "had", "0.0", "s"], ["venv", "did", "0.0", "s"]]


def test_steps_that_do_not_wait_for_one_another_run_side_by_side() -> None:
    meet = threading.Barrier(2, timeout=10)
    assert run([Step("one", lambda: meet.wait() >= 0), Step("two", lambda: meet.wait() >= 0)])


def test_a_step_begins_when_what_it_waits_for_is_done() -> None:
    order: list[str] = []

    def noted(name: str) -> bool:
        order.append(name)
        return True

    assert run([
        Step("last", lambda: noted("last"), after=("middle", "first")),
        Step("middle", lambda: noted("middle"), after=("first",)),
        Step("first", lambda: noted("first"), after=("a step that is not part of this run",)),
    ])
    assert order == ["first", "middle", "last"]


def test_after_a_failure_nothing_new_begins_and_the_failure_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "apt.log"
    log.write_text("".join(f"line {number}\n" for number in range(100)) + "E: No space left on device\n")

    def fail() -> bool:
        raise Trouble("apt-get could not install docker.io.", log=log)

    assert not run([Step("packages", fail), Step("engine", lambda: True, after=("packages",))])
    shown = capsys.readouterr().out
    assert "engine" not in shown
    assert "Failed at: packages\n  apt-get could not install docker.io." in shown
    assert "| E: No space left on device" in shown
    assert "line 50" not in shown
    assert "-> The disk is full" in shown


def test_an_unforeseen_error_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> bool:
        raise OSError(28, "No space left on device")

    assert not run([Step("venv", fail)])
    shown = capsys.readouterr().out
    assert "Traceback" not in shown
    assert "-> The disk is full" in shown


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full"),
        ("E: Could not get lock /var/lib/dpkg/lock-frontend", "Another package manager"),
        ("W: Temporary failure resolving 'host'", "The network did not answer"),
        ("pip._vendor.urllib3.exceptions.NewConnectionError: Errno 101", "The network did not answer"),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE", "not the one that was locked"),
        ("[Errno 98] error while attempting to bind: address already in use", "Another program took the port"),
        ("E: are you root?", "This needs root"),
        ("something that nobody foresaw", "Read the log"),
    ],
)
def test_what_a_log_says_leads_to_a_remedy(log: str, remedy: str) -> None:
    assert remedy in remedy_for(log)


def test_of_a_traceback_only_the_end_is_shown(tmp_path: Path) -> None:
    log = tmp_path / "deployments.log"
    frames = 'Traceback (most recent call last):\n  File "x.py", line 1, in <module>\n    import y\n'
    log.write_text(f"deploying\n{frames}ModuleNotFoundError: No module named 'y'\n")
    assert tail(log) == "deploying\nModuleNotFoundError: No module named 'y'"
