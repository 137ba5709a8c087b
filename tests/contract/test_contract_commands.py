"""The output of checks and smoke commands: exit 0 alone proves nothing where counts and texts are expected."""

import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relais.config import Check, Smoke, Waiver
from relais.contract import check_finding, count_passed, failed_tests, waived
from relais.model import Finding


def check(**wanted: Any) -> Check:
    return Check.model_validate({"name": "tests", "run": "python -m pytest", **wanted})


COUNTS = [
    pytest.param("===== 15 passed, 1 skipped in 0.3s =====", 15, id="pytest with a skip"),
    pytest.param("===== 2 failed, 13 passed, 3 warnings in 62.30s (0:01:02) =====", 13, id="pytest with failures and a minute"),
    pytest.param("15 passed in 0.30s\n", 15, id="pytest -q"),
    pytest.param("============ no tests ran in 0.01s ============", 0, id="pytest without tests"),
    pytest.param("============ 3 errors in 0.11s ============", 0, id="pytest that could not collect"),
    pytest.param("3 passed, 7 subtests passed in 0.1s", 3, id="subtests are not tests"),
    pytest.param("\x1b[32m== \x1b[32m\x1b[1m8 passed\x1b[0m, \x1b[33m1 skipped\x1b[0m\x1b[32m in 0.01s\x1b[0m ==", 8, id="colours"),
    pytest.param("1 passed in 0.1s\nlog: 99 passed by\n2 passed in 0.1s", 2, id="the last closing line"),
    pytest.param(" Test Files  3 passed (3)\n      Tests  12 passed (12)\n   Start at  1", 12, id="vitest"),
    pytest.param("      Tests  1 failed | 11 passed (12)", 11, id="vitest with a failure"),
    pytest.param("      Tests  2 failed (2)", 0, id="vitest with failures only"),
    pytest.param("Test Suites: 1 passed, 1 total\nTests:       1 failed, 12 passed, 13 total\nTime: 1 s", 12, id="jest"),
    pytest.param("  5 passed (3.2s)\n", 5, id="Playwright"),
    pytest.param("  7 passing (30ms)\n  1 failing\n", 7, id="mocha"),
    pytest.param("# tests 9\n# pass 8\n# fail 1\n", 8, id="node --test"),
    pytest.param("....\nRan 15 tests in 0.1s\n\nOK (skipped=2)\n", 13, id="unittest"),
    pytest.param("Ran 4 tests in 0.1s\n\nFAILED (failures=1, errors=1)\n", 2, id="unittest with failures"),
    pytest.param("", None, id="nothing"),
    pytest.param("All checks passed!", None, id="ruff counts nothing"),
    pytest.param("Smoke tests passed", None, id="a claim"),
    pytest.param("we had 15 passed tests in 0.3 seconds once", None, id="prose"),
]


@pytest.mark.parametrize(("output", "passed"), COUNTS)
def test_the_count_is_read_from_the_closing_line(output: str, passed: int | None) -> None:
    assert count_passed(output) == passed


def test_what_pytest_writes_today_is_read(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import pytest\ndef test_a(): pass\ndef test_b(): pass\n@pytest.mark.skip\ndef test_c(): pass\ndef test_d(): assert 0\n"
    )
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=yes"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert count_passed(ran.stdout) == 2
    assert failed_tests(ran.stdout) == ("test_it.py::test_d",)


OUTCOMES = [
    pytest.param({"passed": 15}, 0, "15 passed in 1s", "passed", "15 passed", id="as many as expected"),
    pytest.param({"passed": 15}, 0, "16 passed in 1s", "passed", "may ask for more", id="more, with a note"),
    pytest.param({"passed": 15}, 0, "14 passed in 1s", "failed", "14 of 15 passed", id="fewer, in spite of exit 0"),
    pytest.param({"passed": 15}, 0, "fine", "not proven", "does not say how many", id="no count"),
    pytest.param({"passed": 15}, 1, "1 failed, 14 passed in 1s", "failed", "exit 1; 14 of 15 passed", id="red"),
    pytest.param({"expect": "Success"}, 0, "Success: no issues", "passed", "exit 0", id="the text"),
    pytest.param({"expect": ["All checks passed"]}, 0, "", "failed", 'exit 0, but "All checks passed" is not in the output', id="no text"),
    pytest.param({"expect": "ok"}, 2, "ok", "failed", "exit 2", id="the text does not outweigh the exit code"),
    pytest.param({"expect": "done"}, 0, "\x1b[1mdo\x1b[0mne", "passed", "exit 0", id="colours do not hide a text"),
    pytest.param({}, 0, "", "passed", "exit 0", id="nothing expected"),
    pytest.param({}, None, "no shell", "not proven", "did not start: no shell", id="not started"),
    pytest.param({}, 127, "sh: 1: pwsh: not found", "not proven", "the command was not found: sh: 1: pwsh: not found", id="no such tool"),
    pytest.param({}, -9, "", "failed", "ended by signal 9", id="killed"),
]


@pytest.mark.parametrize(("wanted", "code", "output", "outcome", "said"), OUTCOMES)
def test_a_check_passes_only_when_code_count_and_texts_agree(
    wanted: dict[str, Any], code: int | None, output: str, outcome: str, said: str
) -> None:
    finding = check_finding(check(**wanted), code, output)
    assert (finding.outcome, finding.name, finding.kind) == (outcome, "tests", "check")
    assert said in finding.detail


def test_a_check_that_ran_out_of_time_is_not_proven() -> None:
    finding = check_finding(check(timeout="90s", required=False), None, "1 passed in 1s", timed_out=True, seconds=90.0)
    assert (finding.outcome, finding.detail, finding.required) == ("not proven", "no end after 90 s", False)


def test_a_smoke_command_is_judged_in_the_same_words() -> None:
    smoke = Smoke.model_validate({"run": "python smoke.py {url}", "expect": ["Memory clear"], "required": False})
    finding = check_finding(smoke, 0, "everything passed")
    assert (finding.kind, finding.outcome, finding.required, finding.blocks) == ("smoke", "failed", False, False)


def test_the_evidence_is_the_end_of_the_output() -> None:
    evidence = check_finding(check(), 1, "\n".join(f"line {n}" for n in range(1000))).evidence
    assert len(evidence.splitlines()) == 25
    assert evidence.endswith("line 999")


RED = "FAILED tests/a.py::test_x - assert 0\nFAILED tests/b.py::test_y\n==== 2 failed, 152 passed in 9s ===="


def test_what_was_red_before_is_let_through_by_name() -> None:
    finding = check_finding(check(passed=154), 1, RED, known=["tests/a.py::test_x", "tests/b.py::test_y"])
    assert (finding.outcome, finding.detail) == ("waived", "152 passed, 2 failed as before")


def test_new_red_blocks_and_is_named() -> None:
    finding = check_finding(check(passed=154), 1, RED, known=["tests/a.py::test_x"])
    assert finding.blocks
    assert "newly failed: tests/b.py::test_y" in finding.detail


def test_failures_that_are_not_all_named_are_never_let_through() -> None:
    finding = check_finding(check(), 1, RED.replace("2 failed", "3 failed"), known=["tests/a.py::test_x", "tests/b.py::test_y"])
    assert finding.outcome == "failed"


WAIVER = Waiver.model_validate({"check": "mypy", "because": "stubs of library X", "by": "FG", "until": "2025-10-31"})


def test_a_waiver_lets_its_check_through_until_its_last_day() -> None:
    red = Finding(name="mypy", outcome="failed", detail="exit 1")
    (let,) = waived([red], [WAIVER], date(2025, 10, 31))
    assert (let.outcome, let.detail) == ("waived", "exit 1; waived by FG until 2025-10-31: stubs of library X")
    (late,) = waived([red], [WAIVER], date(2025, 11, 1))
    assert late.blocks
    assert "the waiver by FG ended on 2025-10-31" in late.detail


def test_a_waiver_changes_nothing_that_passed_and_no_other_check() -> None:
    findings = (Finding(name="mypy", outcome="passed"), Finding(name="ruff", outcome="failed"))
    assert waived(findings, [WAIVER], date(2025, 10, 1)) == findings


@given(st.text(max_size=400), st.none() | st.integers(-20, 255))
def test_any_output_is_judged(output: str, code: int | None) -> None:
    finding = check_finding(check(passed=1, expect="ok"), code, output, known=["a"])
    assert finding.outcome in ("passed", "failed", "not proven", "waived")
    assert "\n" not in finding.detail
