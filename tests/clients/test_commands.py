"""A team's command, really run: with a limit, with its output, and with nothing left of it."""

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from relais.clients.commands import Ran, run


def go(tmp_path: Path, command: str, timeout: float = 20, **more: object) -> Ran:
    return run(command, tmp_path, **{"env": {}, "timeout": timeout, **more})  # type: ignore[arg-type]


def until(true: Callable[[], bool], within: float = 10) -> bool:
    deadline = time.monotonic() + within
    while not true():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(") ")[1][0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "code", "output"),
    [
        ("printf one", 0, "one"),
        ("ls nowhere.txt", 2, "ls: cannot access 'nowhere.txt': No such file or directory"),
        ("echo one | tr a-z A-Z", 0, "ONE"),
        ("echo out; echo err >&2", 0, "out\nerr"),
        ("false | true", 1, ""),
        ("cd / && pwd", 0, "/"),
        ("WORD=hello bash -c 'echo $WORD'", 0, "hello"),
        ("printf '%s' 'two words'", 0, "two words"),
        ("printf 'a\\000b'", 0, "a\0b"),
        ("printf '\\377\\n'", 0, "\ufffd"),
        ("printf '\\033[32mgreen\\033[0m\\n'", 0, "green"),
        ("printf '10%%\\r50%%\\r100%%\\nend\\r\\n'", 0, "100%\nend"),
        ("cat", 0, ""),
    ],
)
def test_a_command_is_run_as_it_stands_and_by_a_shell_where_it_has_shell_syntax(
    tmp_path: Path, command: str, code: int, output: str
) -> None:
    ran = go(tmp_path, command)
    assert (ran.code, ran.output) == (code, output)
    assert ran.ok is (code == 0)


def test_a_command_runs_in_the_directory_that_was_given(tmp_path: Path) -> None:
    assert go(tmp_path, "pwd").output == str(tmp_path)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("no-such-command-here --x", "there is no command 'no-such-command-here' on this machine"),
        ("./missing.sh", "there is no command './missing.sh' on this machine"),
        ("./plain.txt", "'./plain.txt' may not be executed"),
        ("echo 'open", "the command cannot be read: No closing quotation"),
        ("", "the command cannot be read: the command is empty"),
    ],
)
def test_a_command_that_does_not_begin_says_why(tmp_path: Path, command: str, said: str) -> None:
    (tmp_path / "plain.txt").write_text("not a program")
    ran = go(tmp_path, command)
    assert (ran.code, ran.started_error, ran.reason) == (None, said, said)


def test_a_missing_directory_is_named(tmp_path: Path) -> None:
    assert go(tmp_path / "gone", "pwd").started_error == f"there is no directory {tmp_path / 'gone'}"


def test_lines_are_told_while_the_command_runs(tmp_path: Path) -> None:
    heard: list[tuple[str, float]] = []
    begun = time.monotonic()
    go(tmp_path, "echo first; sleep 1; echo second", on_line=lambda line: heard.append((line, time.monotonic() - begun)))
    assert [line for line, _ in heard] == ["first", "second"]
    assert heard[0][1] < 0.8 < heard[1][1]


def test_at_the_limit_the_whole_family_is_ended(tmp_path: Path) -> None:
    ran = go(tmp_path, "sleep 300 & echo $! > child; echo begun; wait", timeout=1)
    assert (ran.code, ran.timed_out, ran.output) == (None, True, "begun")
    assert ran.reason == "not finished after 1 s, so it was ended"
    assert until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_command_may_tidy_up_when_it_is_asked_to_end(tmp_path: Path) -> None:
    ran = go(tmp_path, "trap 'echo tidy > tidied; exit 0' TERM; echo begun; while true; do sleep 0.05; done", timeout=1)
    assert ran.timed_out
    assert (tmp_path / "tidied").read_text() == "tidy\n"


def test_a_command_that_does_not_listen_is_ended_all_the_same(tmp_path: Path) -> None:
    begun = time.monotonic()
    ran = go(tmp_path, "trap '' TERM; echo $$ > pid; while true; do sleep 0.1; done", timeout=0.5)
    assert ran.timed_out
    assert time.monotonic() - begun < 9
    assert not alive(int((tmp_path / "pid").read_text()))


@pytest.mark.parametrize("start", ["sleep 300 &", "setsid sleep 300 &"])
def test_a_grandchild_that_keeps_the_pipe_open_is_not_waited_for(tmp_path: Path, start: str) -> None:
    begun = time.monotonic()
    ran = go(tmp_path, f"{start} echo $! > child; echo bye")
    child = int((tmp_path / "child").read_text())
    assert (ran.code, ran.output) == (0, "bye")
    assert time.monotonic() - begun < 8
    if start.startswith("setsid"):
        os.kill(child, 9)
    assert until(lambda: not alive(child))


def test_what_a_command_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    go(tmp_path, "sleep 300 > /dev/null 2>&1 & echo $! > child")
    assert until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_an_interruption_ends_the_command_too(tmp_path: Path) -> None:
    def interrupted(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        go(tmp_path, "echo $$ > pid; echo begun; sleep 300", on_line=interrupted)
    assert until(lambda: not alive(int((tmp_path / "pid").read_text())))


def test_a_command_that_closes_its_output_is_still_waited_for(tmp_path: Path) -> None:
    assert go(tmp_path, "exec >&- 2>&-; sleep 0.3; exit 4").code == 4


def test_values_come_by_the_environment_and_are_never_shown(tmp_path: Path) -> None:
    secret, heard = "s3cret\nwith two lines = $HOME", list[str]()
    ran = go(
        tmp_path, "tr '\\0' ' ' < /proc/$$/cmdline; echo; echo \"$TOKEN\"; echo $OTHER $PATH", env={"TOKEN": secret, "OTHER": ""},
        redact=(secret,), on_line=heard.append,
    )  # fmt: skip
    lines = ran.output.splitlines()
    assert lines[1:3] == ["***", "***"]
    assert lines[3].strip() == os.environ["PATH"]
    assert "s3cret" not in ran.output + "".join(heard)
    assert heard == lines


def test_values_reach_a_command_without_a_shell_too(tmp_path: Path) -> None:
    assert "WORD=über = all\n" in go(tmp_path, "env", env={"WORD": "über = all", "LARGE": "x" * 100_000}).output


def test_of_a_long_output_the_beginning_and_the_end_are_kept(tmp_path: Path) -> None:
    ran = go(tmp_path, "seq 1 10000", keep=40)
    lines = ran.output.splitlines()
    assert lines[:10] == [str(n) for n in range(1, 11)]
    assert lines[10] == "... 9960 lines left out ..."
    assert lines[11:] == [str(n) for n in range(9971, 10001)]
    assert ran.tail(2) == "9999\n10000"


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path) -> None:
    ran = go(tmp_path, "head -c 3000000 /dev/zero | tr '\\0' x", keep=100)
    assert ran.code == 0
    assert len(ran.output) < 1_000_000


def test_a_command_ended_by_a_signal_says_which(tmp_path: Path) -> None:
    assert go(tmp_path, "kill -KILL $$").reason == "ended by signal 9 (Killed)"
