"""A log against the lines that must and must not be there."""

from hypothesis import given
from hypothesis import strategies as st

from relais.config import LogExpectation
from relais.contract import log_findings

STARTED = [
    "Starting new instance. Reason: DEPLOYMENT_ROLLOUT",
    "INFO: MemoryTaskQueue started with 2 workers",
    "INFO: Worker 0 started",
    "INFO: Worker 1 started",
    "INFO: Application startup complete.",
]
WANTED = LogExpectation.model_validate({"expect": ["MemoryTaskQueue started with 2 workers", "/Worker [01] started$/"]})


def test_lines_that_are_there_pass_with_the_line_as_evidence() -> None:
    first, second, forbidden = log_findings(WANTED, STARTED, now_done=False)
    assert {first.outcome, second.outcome, forbidden.outcome} == {"passed"}
    assert first.name == "log: MemoryTaskQueue started with 2 workers"
    assert first.evidence == "INFO: MemoryTaskQueue started with 2 workers"
    assert forbidden.detail == "5 lines read"


def test_a_missing_line_is_not_proven_until_its_time_is_over_and_then_failed() -> None:
    assert [f.outcome for f in log_findings(WANTED, STARTED[:1], now_done=False)] == ["not proven", "not proven", "passed"]
    missing = log_findings(WANTED, STARTED[:1], now_done=True)[0]
    assert (missing.outcome, missing.detail) == ("failed", "in none of 1 lines")


def test_what_is_forbidden_fails_at_once_with_the_lines_around_it() -> None:
    crash = ["Traceback (most recent call last):", '  File "main.py", line 3', "ModuleNotFoundError: No module named 'x'", "exit(1)"]
    forbidden = log_findings(WANTED, [*STARTED, *crash], now_done=False)[-1]
    assert forbidden.outcome == "failed"
    assert "Traceback (most recent call last) in line 6, ModuleNotFoundError in line 8" in forbidden.detail
    assert "Worker 1 started" in forbidden.evidence
    assert "exit(1)" in forbidden.evidence


def test_an_empty_log_proves_nothing() -> None:
    expected, _, forbidden = log_findings(WANTED, [], now_done=True)
    assert (expected.outcome, expected.detail) == ("failed", "the log is empty")
    assert forbidden.outcome == "not proven"
    assert not forbidden.blocks


def test_without_forbidden_lines_only_the_expected_ones_are_looked_for() -> None:
    assert log_findings(LogExpectation.model_validate({"expect": "x", "forbid": []}), ["x"], now_done=True)[0].outcome == "passed"
    assert len(log_findings(LogExpectation.model_validate({"expect": "x", "forbid": []}), ["x"], now_done=True)) == 1


@given(st.lists(st.text(max_size=60), max_size=20), st.booleans())
def test_any_log_is_judged(lines: list[str], done: bool) -> None:
    for finding in log_findings(WANTED, lines, done):
        assert finding.outcome in ("passed", "failed", "not proven")
        assert "\n" not in finding.detail
