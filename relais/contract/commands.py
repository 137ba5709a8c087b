"""The output of a check or a smoke command against what is expected of it: exit code, counts, texts."""

import re
from collections.abc import Collection, Iterable, Sequence
from datetime import date
from typing import Final, Protocol

from relais.config import Check, Smoke, Waiver, found_in
from relais.contract.texts import last_lines, one_line, plain, quoted
from relais.model import Finding, Outcome

_TALLY = r"\d+ (?:passed|failed|errors?|skipped|deselected|xfailed|xpassed|warnings?|rerun|subtests passed)"
_PYTEST: Final = re.compile(rf"^=*[ \t]*((?:{_TALLY})(?:, {_TALLY})*|no tests (?:ran|collected)) in [\d.:]+ ?s\b", re.MULTILINE)
# the closing line of each tool that counts: pytest, vitest and jest, Playwright, mocha, node --test
_CLOSINGS: Final = (
    _PYTEST,
    re.compile(r"^[ \t]*Tests:?[ \t]+(\d+ (?:passed|failed|skipped|todo|pending|total)\b.*)$", re.MULTILINE),
    re.compile(r"^[ \t]+(\d+ passed) \([\d.]+m?s\)[ \t]*$", re.MULTILINE),
    re.compile(r"^[ \t]+(\d+ passing)\b", re.MULTILINE),
    re.compile(r"^[#ℹ] (pass \d+)[ \t]*$", re.MULTILINE),
)
_PASSED: Final = re.compile(r"(?<!\S)(\d+) (?:passed|passing)\b|\bpass (\d+)")
_UNITTEST: Final = re.compile(r"^Ran (\d+) tests? in [\d.]+s\s+^(?:OK|FAILED|NO TESTS RAN)\b(?: \((.*)\))?", re.MULTILINE)
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (\S+?)(?: - .*)?$", re.MULTILINE)
_RED: Final = re.compile(r"(\d+) (?:failed|errors?)\b")
_NOT_FOUND: Final = 127  # what a shell says where there is no such command


def count_passed(output: str) -> int | None:
    """How many tests passed, from the closing line of pytest, unittest, vitest, jest, Playwright, mocha or node; None without one."""
    text = plain(output)
    if closing := _closing(text):
        found = next((a or b for a, b in _PASSED.findall(re.sub(r"\d+ subtests passed", "", closing))), "0")
        return int(found)
    if runs := _UNITTEST.findall(text):
        total, rest = runs[-1]
        return max(0, int(total) - sum(int(n) for n in re.findall(r"(?:failures|errors|skipped|expected failures)=(\d+)", rest)))
    return None


def failed_tests(output: str) -> tuple[str, ...]:
    """The tests that pytest's summary names as failed or broken."""
    return tuple(dict.fromkeys(_FAILED.findall(plain(output))))


def _closing(text: str) -> str:
    """The last closing line that a tool wrote."""
    found = [(match.start(), match[1]) for pattern in _CLOSINGS for match in pattern.finditer(text)]
    return max(found)[1] if found else ""


class Ran(Protocol):
    """A command that was run: its exit code (None: it did not start, and `reason` says why), its output, and whether its time ran out."""

    @property
    def code(self) -> int | None: ...
    @property
    def output(self) -> str: ...
    @property
    def reason(self) -> str: ...
    @property
    def timed_out(self) -> bool: ...
    @property
    def seconds(self) -> float: ...


def command_finding(wanted: Check | Smoke, ran: Ran, *, kind: str = "check", known: Collection[str] = ()) -> Finding:
    """What a command that was run came to."""
    output = ran.reason if ran.code is None and not ran.timed_out else ran.output
    found = check_finding(wanted, ran.code, output, timed_out=ran.timed_out, seconds=ran.seconds, known=known)
    return found.model_copy(update={"kind": kind})


def check_finding(
    check: Check | Smoke, code: int | None, output: str, *, timed_out: bool = False, seconds: float = 0.0, known: Collection[str] = ()
) -> Finding:
    """What a command came to. `code` is None where it did not start; `known` are the tests that were red before."""
    outcome, detail = _outcome(check, code, output, timed_out, frozenset(known))
    return Finding(
        name=check.name,
        kind="smoke" if isinstance(check, Smoke) else "check",
        outcome=outcome,
        detail=detail,
        evidence=last_lines(output),
        seconds=round(seconds, 3),
        required=check.required,
    )


def _outcome(check: Check | Smoke, code: int | None, output: str, timed_out: bool, known: frozenset[str]) -> tuple[Outcome, str]:
    if timed_out:
        return "not proven", f"no end after {check.timeout.total_seconds():g} s"
    if code is None:
        return "not proven", f"it did not start: {one_line(output) or 'no reason given'}"
    if code == _NOT_FOUND:
        return "not proven", f"the command was not found: {one_line(last_lines(output, 1)) or check.run}"
    return _green(check, output) if code == 0 else _red(check, code, output, known)


def _green(check: Check | Smoke, output: str) -> tuple[Outcome, str]:
    """A command that ended with exit 0: its output must say so too."""
    passed, text = count_passed(output), plain(output)
    if missing := [wanted for wanted in check.expect if not found_in(wanted, text)]:
        return "failed", f"exit 0, but {', '.join(map(quoted, missing))} is not in the output"
    if check.passed is None:
        return "passed", "exit 0" if passed is None else f"{passed} passed"
    if passed is None:
        return "not proven", f"exit 0, but the output does not say how many tests passed ({check.passed} expected)"
    if passed < check.passed:
        return "failed", f"{passed} of {check.passed} passed, though it ended with exit 0"
    more = f"; {check.passed} expected, so the release file may ask for more" if passed > check.passed else ""
    return "passed", f"{passed} passed{more}"


def _red(check: Check | Smoke, code: int, output: str, known: frozenset[str]) -> tuple[Outcome, str]:
    """A command that ended with another exit code than 0: let through where everything red was red before."""
    passed, failed = count_passed(output), failed_tests(output)
    counted = sum(int(count) for count in _RED.findall(_closing(plain(output))))
    new = [name for name in failed if name not in known]
    enough = check.passed is None or (passed or 0) + len(failed) >= check.passed
    if known and failed and not new and counted == len(failed) and enough:
        return "waived", f"{passed or 0} passed, {len(failed)} failed as before"
    parts = [f"exit {code}" if code >= 0 else f"ended by signal {-code}"]
    if passed is not None:
        parts.append(f"{passed} of {check.passed} passed" if check.passed is not None else f"{passed} passed")
    if named := new if known else failed:
        more = f" and {len(named) - 5} more" if len(named) > 5 else ""
        parts.append(f"{'newly ' if known else ''}failed: {', '.join(named[:5])}{more}")
    return "failed", "; ".join(parts)


def waived(findings: Iterable[Finding], waivers: Sequence[Waiver], today: date) -> tuple[Finding, ...]:
    """The findings, the red ones let through where a waiver that still holds names them."""
    by_name = {waiver.check: waiver for waiver in waivers}
    return tuple(_waived(finding, by_name.get(finding.name), today) for finding in findings)


def _waived(finding: Finding, waiver: Waiver | None, today: date) -> Finding:
    if waiver is None or finding.outcome not in ("failed", "not proven"):
        return finding
    if waiver.until is not None and waiver.until < today:
        return finding.model_copy(update={"detail": f"{finding.detail}; the waiver by {waiver.by} ended on {waiver.until}"})
    until = f" until {waiver.until}" if waiver.until else ""
    return finding.model_copy(
        update={"outcome": "waived", "detail": f"{finding.detail}; waived by {waiver.by}{until}: {waiver.because}"}
    )
