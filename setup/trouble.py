"""What stops the set-up: which step, what happened, the last lines of its log, and what to do."""

import re
from collections.abc import Iterator
from pathlib import Path

_TAIL = 12

# What a log says, and what a person does about it. The first match wins.
_REMEDIES = (
    (r"No space left on device|ENOSPC|Errno 28", "The disk is full: free some gigabytes (`df -h .`), then again."),
    (r"Could not get lock|Unable to acquire the dpkg", "Another package manager is at work: wait until it has ended, then again."),
    (
        r"Temporary failure resolving|Could not resolve|Name or service not known|Network is unreachable|NewConnectionError|"
        r"Failed to establish a new connection|Could not connect to|ConnectTimeout|ENOTFOUND|ETIMEDOUT",
        "The network did not answer: check the connection (and a proxy, if there is one), then again.",
    ),
    (r"DO NOT MATCH THE HASHES", "A package is not the one that was locked: try again; else `make lock`, and read what changed."),
    (r"[Aa]ddress already in use", "Another program took the port: `make up` again chooses the next free one."),
    (r"not root|are you root|Operation not permitted|Permission denied", "This needs root: run it as root, or do this step by hand."),
)


class Trouble(Exception):
    """One step could not be done; printed as a few lines, never as a traceback."""

    def __init__(self, what: str, *, remedy: str = "", log: Path | None = None) -> None:
        super().__init__(what)
        self.what, self.log = what, log
        self.remedy = remedy or remedy_for(what + "\n" + tail(log))

    def lines(self, step: str) -> list[str]:
        """The step, what happened, the end of its log, what to do."""
        shown = [f"Failed at: {step}", f"  {self.what}"]
        last = tail(self.log)
        if self.log is not None and last:
            shown.append(f"  the end of {self.log}:")
            shown += [f"  | {line}" for line in last.splitlines()]
        return [*shown, f"  -> {self.remedy}"]


def remedy_for(text: str) -> str:
    """What to do about a log that says this."""
    for pattern, remedy in _REMEDIES:
        if re.search(pattern, text):
            return remedy
    return "Read the log, mend what it names, and type the same command again: what is done already is not done twice."


def tail(log: Path | None) -> str:
    """The last lines of a log, or nothing where there is none."""
    if log is None:
        return ""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 8000))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(list(_telling(text.splitlines()))[-_TAIL:])


def _telling(lines: list[str]) -> Iterator[str]:
    """The lines that tell something: no chatter, and of a traceback only how it ended."""
    in_traceback = False
    for line in lines:
        if line.startswith("Traceback ") or (in_traceback and line.startswith(" ")):
            in_traceback = True
        elif line.strip() and not re.search(r"level=(info|debug)", line):
            in_traceback = False
            yield line.rstrip()[:300]
