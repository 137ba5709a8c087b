"""A team's command, run with a time limit: its output streamed and kept, its whole family ended with it."""

import codecs
import contextlib
import os
import re
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

GRACE: Final = 5.0  # seconds between "please end" and the end
_DRAIN: Final = 1.0  # seconds for what is still in the pipe when the command itself has ended
_LINE: Final = 8_000  # characters of one line that are kept
_SHELL: Final = re.compile(r"[|&;<>$`*?~()\n]|^\s*\w+=")
_BASH: Final = ("/bin/bash", "-o", "pipefail", "-c")
_ANSI: Final = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
# Names and values come through a pipe: an argument list is readable by everybody on the machine.
_WITH_ENV: Final = 'while IFS= read -r -d "" pair; do export "$pair"; done <&"$1"; eval "exec $1<&-"; shift; exec "$@"'


@dataclass(frozen=True)
class Ran:
    """What a command came to. `code` is None where it did not end by itself or never began."""

    code: int | None
    seconds: float
    output: str  # stdout and stderr as they came; the middle is left out where it is long
    timed_out: bool = False
    started_error: str | None = None
    limit: float = 0.0

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def reason(self) -> str:
        """How it ended, in a few words."""
        if self.started_error is not None:
            return self.started_error
        if self.timed_out:
            return f"not finished after {self.limit:g} s, so it was ended"
        if self.code is not None and self.code < 0:
            return f"ended by signal {-self.code} ({signal.strsignal(-self.code) or 'unknown'})"
        return f"exit code {self.code}"

    def tail(self, lines: int = 20) -> str:
        """The last lines of the output."""
        return "\n".join(self.output.splitlines()[-lines:])


def run(
    command: str,
    cwd: Path,
    *,
    env: Mapping[str, str],
    timeout: float,
    on_line: Callable[[str], None] = lambda _line: None,
    keep: int = 4000,
    redact: Sequence[str] = (),
) -> Ran:
    """Run it in `cwd` with `env` added to this process's environment; values in `redact` never appear in what is kept or shown.

    Without shell syntax it is run as it stands; with pipes, variables or the like by bash, where a failing part fails the pipe.
    """
    try:
        arguments = _arguments(command)
    except (OSError, ValueError) as problem:
        return Ran(None, 0.0, "", started_error=_why(problem, cwd))
    return run_arguments(arguments, cwd, env=env, timeout=timeout, on_line=on_line, keep=keep, redact=redact)


def run_arguments(
    arguments: Sequence[str],
    cwd: Path,
    *,
    env: Mapping[str, str],
    timeout: float,
    on_line: Callable[[str], None] = lambda _line: None,
    keep: int = 4000,
    redact: Sequence[str] = (),
) -> Ran:
    """As `run`, for a command that is a list already."""
    begun = time.monotonic()
    try:
        process = _start(arguments, cwd, env)
    except (OSError, ValueError) as problem:
        return Ran(None, 0.0, "", started_error=_why(problem, cwd))
    kept, late = _Kept(keep), False
    try:
        for line in _lines(process, begun + timeout):
            shown = _redacted(line, redact)
            kept.add(shown)
            on_line(shown)
        late = process.poll() is None
    finally:
        _end(process)
    return Ran(None if late else process.returncode, round(time.monotonic() - begun, 2), kept.text, late, limit=timeout)


def _arguments(command: str) -> list[str]:
    if _SHELL.search(command):
        return [*_BASH, command]
    arguments = shlex.split(command)
    if not arguments:
        raise ValueError("the command is empty")
    if "/" not in arguments[0] and shutil.which(arguments[0]) is None:
        raise FileNotFoundError(2, "not found", arguments[0])
    return arguments


def _start(arguments: Sequence[str], cwd: Path, env: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """In a process group of its own, with no terminal and nothing to read."""
    if not cwd.is_dir():
        raise NotADirectoryError(20, "no such directory", str(cwd))
    pipe = subprocess.PIPE
    if not env:
        return subprocess.Popen(
            arguments, cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe, stderr=subprocess.STDOUT, start_new_session=True
        )
    theirs, ours = os.pipe()
    try:
        process = subprocess.Popen(
            ["/bin/bash", "-c", _WITH_ENV, "relais", str(theirs), *arguments], cwd=cwd, stdin=subprocess.DEVNULL, stdout=pipe,
            stderr=subprocess.STDOUT, start_new_session=True, pass_fds=(theirs,),
        )  # fmt: skip
    except OSError:
        os.close(ours)
        raise
    finally:
        os.close(theirs)
    with contextlib.suppress(BrokenPipeError), open(ours, "wb") as secrets:
        secrets.write(b"".join(f"{name}={value}\0".encode() for name, value in env.items()))
    return process


def _why(problem: Exception, cwd: Path) -> str:
    if isinstance(problem, NotADirectoryError):
        return f"there is no directory {cwd}"
    if isinstance(problem, FileNotFoundError):
        return f"there is no command {str(problem.filename)!r} on this machine"
    if isinstance(problem, PermissionError):
        return f"{problem.filename!r} may not be executed"
    if isinstance(problem, ValueError):
        return f"the command cannot be read: {problem}"
    return f"the command does not start: {problem}"


# -- its output ----------------------------------------------------------------------------------------------------------


def _lines(process: subprocess.Popen[bytes], deadline: float) -> Iterator[str]:
    """Lines as they come, until the command has ended or the deadline is over; a grandchild that keeps the pipe open is not waited for."""
    assert process.stdout is not None
    text = _Text()
    for data in _chunks(process, process.stdout, deadline):
        yield from text.fed(data)
    yield from text.rest()


def _chunks(process: subprocess.Popen[bytes], pipe: IO[bytes], deadline: float) -> Iterator[bytes]:
    ended = False
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(min(left, 0.1)):
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    _ended(process, deadline)
                    return
                yield data
            elif ended:
                return  # the pipe is silent yet open: only what the command left behind can hold it
            if not ended and process.poll() is not None:
                ended, deadline = True, min(deadline, time.monotonic() + _DRAIN)


def _ended(process: subprocess.Popen[bytes], deadline: float) -> None:
    """It closed its output; it may still be at work."""
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(max(0.0, deadline - time.monotonic()))


class _Text:
    """Bytes made into lines: UTF-8 with replacements, no colours, of a progress bar only its last state."""

    def __init__(self) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._open = ""

    def fed(self, data: bytes) -> Iterator[str]:
        *whole, self._open = (self._open + self._decoder.decode(data)).split("\n")
        yield from map(_plain, whole)
        if len(self._open) > _LINE:
            yield _plain(self._open)
            self._open = ""

    def rest(self) -> Iterator[str]:
        last = self._open + self._decoder.decode(b"", final=True)
        if last:
            yield _plain(last)


def _plain(line: str) -> str:
    return _ANSI.sub("", line.rstrip("\r")).rpartition("\r")[2][:_LINE]


def _redacted(line: str, secrets: Sequence[str]) -> str:
    for secret in secrets:
        for part in filter(None, secret.splitlines()):
            line = line.replace(part, "***")
    return line


class _Kept:
    """The first lines and the last: at most `limit` of them."""

    def __init__(self, limit: int) -> None:
        self._head: list[str] = []
        self._tail: deque[str] = deque(maxlen=max(1, limit - limit // 4))
        self._first, self._left_out = limit // 4, 0

    def add(self, line: str) -> None:
        if len(self._head) < self._first:
            self._head.append(line)
            return
        self._left_out += len(self._tail) == self._tail.maxlen
        self._tail.append(line)

    @property
    def text(self) -> str:
        gap = [f"... {self._left_out} lines left out ..."] if self._left_out else []
        return "\n".join([*self._head, *gap, *self._tail])


# -- its end -------------------------------------------------------------------------------------------------------------


def _end(process: subprocess.Popen[bytes]) -> None:
    """Nothing of it stays: the group is asked to end and, after a while, is ended."""
    try:
        if _signalled(process, signal.SIGTERM):
            _until_closed(process, GRACE)
    finally:
        _signalled(process, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def _signalled(process: subprocess.Popen[bytes], number: signal.Signals) -> bool:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)
        return True
    return False


def _until_closed(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until nobody of the family holds the pipe any more."""
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while (left := deadline - time.monotonic()) > 0:
            if selector.select(left) and not os.read(process.stdout.fileno(), 65536):
                return
