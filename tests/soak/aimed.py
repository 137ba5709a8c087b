"""Local clouds that die in the middle of a write: at the n-th moment, right before or right after a statement that writes.

`python tests/soak/aimed.py AIM OPTIONS...` has all modules loaded and starts a local cloud, in a process of its own, for every line
that it reads: a number n. n > 0: it dies at the n-th moment from its start on. SIGUSR1 has it count anew, up to the number in the file
AIM, which it then removes. Of `localcloud` nothing is replaced: only `sqlite3.connect` gives connections that are watched.
"""

import itertools
import os
import re
import signal
import sqlite3
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from localcloud.__main__ import main

_WRITING = re.compile(r"\s*(INSERT|UPDATE|DELETE|REPLACE|BEGIN|COMMIT|CREATE|ALTER|DROP|PRAGMA user_version *=)", re.IGNORECASE)
_LONGEST_S = 120  # none outlives its test for long
_connect = sqlite3.connect


class Aim:
    """Counts moments, and kills its own process at the one that is aimed at."""

    def __init__(self) -> None:
        self._target, self._moments = 0, iter(itertools.count(1))

    def at(self, target: int) -> None:
        """Die at this moment, counted from now on."""
        self._target, self._moments = target, iter(itertools.count(1))

    def moment(self, statement: str) -> None:
        """A statement is about to run, or has just run."""
        if self._target and _WRITING.match(statement) and next(self._moments) == self._target:
            os.kill(os.getpid(), signal.SIGKILL)

    def connect(self, *args: Any, factory: type[sqlite3.Connection] = sqlite3.Connection, **values: Any) -> sqlite3.Connection:
        """`sqlite3.connect`, watched."""
        aim = self

        class Watched(factory):  # type: ignore[valid-type, misc]
            def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
                done: sqlite3.Cursor = super().execute(sql, parameters)
                aim.moment(sql)
                return done

        made: sqlite3.Connection = _connect(*args, factory=Watched, **values)
        made.set_trace_callback(aim.moment)
        return made


def live(aim: Path, options: list[str], target: int) -> int:
    """Be a local cloud."""
    signal.alarm(_LONGEST_S)
    watched = Aim()
    watched.at(target)

    def anew(*_: Any) -> None:
        watched.at(int(aim.read_text()))
        aim.unlink()

    signal.signal(signal.SIGUSR1, anew)
    sqlite3.connect = watched.connect  # type: ignore[assignment]
    return main(options)


def wanted() -> Iterator[int]:
    """The lines that are read."""
    for line in sys.stdin:
        yield int(line)


if __name__ == "__main__":
    for number in wanted():
        child = os.fork()
        if not child:
            os._exit(live(Path(sys.argv[1]), sys.argv[2:], number))
        print(f"pid {child}", flush=True)
        _, status = os.waitpid(child, 0)
        print(f"ended {os.waitstatus_to_exitcode(status)}", flush=True)
