"""A revision's log lines against the lines that must and must not be there."""

from collections.abc import Sequence

from relais.config import LogExpectation, found_in
from relais.contract.texts import one_line
from relais.model import Finding

_BEFORE, _AFTER = 2, 12  # lines around a forbidden one: a traceback follows its first line
_LONGEST = 8_000  # characters of a line that are looked at


def log_findings(expectation: LogExpectation, lines: Sequence[str], now_done: bool) -> list[Finding]:
    """One finding for each expected line (not proven until the time for it is over), and one for everything forbidden."""
    cut = [line[:_LONGEST] for line in lines]
    findings = [_expected(wanted, cut, now_done) for wanted in expectation.expect]
    return [*findings, _forbidden(expectation.forbid, cut)] if expectation.forbid else findings


def _expected(wanted: str, lines: Sequence[str], now_done: bool) -> Finding:
    found = next((line for line in lines if found_in(wanted, line)), None)
    name = f"log: {wanted}"
    if found is not None:
        return Finding(name=name, kind="logs", outcome="passed", evidence=one_line(found, 300))
    if now_done:
        seen = f"in none of {len(lines)} lines" if lines else "the log is empty"
        last = "\n".join(one_line(line, 300) for line in lines[-15:])
        return Finding(name=name, kind="logs", outcome="failed", detail=seen, evidence=last)
    return Finding(name=name, kind="logs", outcome="not proven", detail="not yet there")


def _forbidden(signatures: Sequence[str], lines: Sequence[str]) -> Finding:
    name = "log: nothing forbidden"
    if not lines:
        return Finding(name=name, kind="logs", outcome="not proven", detail="the log is empty", required=False)
    found = {wanted: at for wanted in signatures if (at := _first(wanted, lines)) is not None}
    if not found:
        return Finding(name=name, kind="logs", outcome="passed", detail=f"{len(lines)} lines read")
    first = min(found.values())
    around = lines[max(0, first - _BEFORE) : first + _AFTER + 1]
    return Finding(
        name=name,
        kind="logs",
        outcome="failed",
        detail=", ".join(f"{wanted} in line {at + 1}" for wanted, at in sorted(found.items(), key=lambda item: item[1])),
        evidence="\n".join(one_line(line, 300) for line in around),
    )


def _first(wanted: str, lines: Sequence[str]) -> int | None:
    return next((at for at, line in enumerate(lines) if found_in(wanted, line)), None)
