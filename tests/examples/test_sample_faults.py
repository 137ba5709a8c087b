"""Each fault of the sample does what its name says, and nothing else."""

import os
import subprocess
import sys
import time
from collections.abc import Callable

import httpx
import pytest
from emergence import SAMPLE, Running, Start


def test_without_faults_it_serves_and_ends_on_sigterm(start: Start) -> None:
    with start() as app:
        assert app.answers()
        assert app.get("/api/health").text == '{"status":"ok","message":"Emergence Backend is running."}'
        assert app.get("/api/sessions").status_code == 200
        assert app.ends() == 0
        assert app.says().splitlines()[-1] == "MemoryTaskQueue stopped"


def all_routes_but_health_fail(app: Running) -> bool:
    return [app.get(path).status_code for path in ("/api/sessions", "/api/memory/status", "/api/health")] == [500, 500, 200]


def only_memory_fails(app: Running) -> bool:
    return [app.get(path).status_code for path in ("/api/sessions", "/api/memory/status", "/api/health")] == [200, 500, 200]


def some_of_many_fail(app: Running) -> bool:
    with httpx.Client(base_url=app.url) as client:
        failed = sum(client.get("/api/sessions").status_code == 500 for _ in range(200))
    return 60 <= failed <= 140


def requests_take_long(app: Running) -> bool:
    return app.get("/api/sessions").elapsed.total_seconds() >= 0.3 > app.get("/api/health").elapsed.total_seconds()


def preferences_are_missing(app: Running) -> bool:
    text = app.get("/api/metrics").text
    return "memory_preferences" not in text and text.count("# TYPE memory_analysis_cache_") >= 3


def metrics_are_disabled(app: Running) -> bool:
    answer = app.get("/api/metrics")
    return (answer.status_code, answer.text) == (200, "# Metrics disabled\n")


def health_says_something_else(app: Running) -> bool:
    answer = app.get("/api/health")
    return answer.status_code == 200 and answer.json()["status"] != "ok"


def a_traceback_is_logged_and_it_serves(app: Running) -> bool:
    said = app.says()
    return "Traceback" in said and "\nImportError: " in said and app.get("/api/sessions").status_code == 200


def memory_grows(app: Running) -> bool:
    before = resident(app)
    for _ in range(5):
        app.get("/api/sessions")
    return resident(app) - before >= 45


def resident(app: Running) -> float:
    """Megabytes of the process."""
    with open(f"/proc/{app.process.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096 / 1e6


@pytest.mark.parametrize(
    ("variables", "shows"),
    [
        ({"FAULT_ERROR_RATE": "1"}, all_routes_but_health_fail),
        ({"FAULT_ERROR_RATE": "1", "FAULT_ERROR_PATH": "/api/memory"}, only_memory_fails),
        ({"FAULT_ERROR_RATE": "0.5"}, some_of_many_fail),
        ({"FAULT_LATENCY_MS": "300"}, requests_take_long),
        ({"FAULT_METRICS_MISSING": "1"}, preferences_are_missing),
        ({"FAULT_METRICS_DISABLED": "1"}, metrics_are_disabled),
        ({"FAULT_HEALTH_JSON": "1"}, health_says_something_else),
        ({"FAULT_TRACEBACK_AT_START": "1"}, a_traceback_is_logged_and_it_serves),
        ({"FAULT_MEMORY_MB_PER_REQUEST": "10"}, memory_grows),
    ],
    ids=lambda value: value.__name__ if callable(value) else " ".join(value),
)
def test_a_fault_shows_in_what_is_served(start: Start, variables: dict[str, str], shows: Callable[[Running], bool]) -> None:
    with start(**variables) as app:
        assert app.answers(), app.says()
        assert shows(app)


def test_a_crash_at_start_ends_the_process_with_a_traceback(start: Start) -> None:
    with start(FAULT_CRASH_AT_START="1") as app:
        assert app.process.wait(10) == 1
        assert "RuntimeError: FAULT_CRASH_AT_START" in app.says()


def test_a_slow_start_waits_before_it_listens(start: Start) -> None:
    begun = time.monotonic()
    with start(FAULT_SLOW_START_SECONDS="1.5") as app:
        assert app.answers()
    assert time.monotonic() - begun >= 1.5


@pytest.mark.parametrize("variables", [{"FAULT_NEVER_LISTEN": "1"}, {"FAULT_SLOW_START_SECONDS": "600"}], ids=" ".join)
def test_what_does_not_listen_lives_and_ends_on_sigterm(start: Start, variables: dict[str, str]) -> None:
    with start(**variables) as app:
        assert not app.answers(within=1.5)
        assert app.process.poll() is None
        assert app.ends() == 0


def test_a_fault_that_cannot_be_is_told_in_one_line(start: Start) -> None:
    with start(FAULT_ERROR_RATE="often") as app:
        assert app.process.wait(10) == 1
        assert app.says() == "backend: FAULT_ERROR_RATE is not a number: 'often'\n"


def test_the_smoke_command_passes_with_credentials_and_says_so_without(start: Start) -> None:
    with start() as app:
        assert app.answers()
        command = [sys.executable, str(SAMPLE / "app" / "tests" / "smoke.py"), "--base-url", app.url]
        secrets = {"EMERGENCE_SMOKE_EMAIL": "smoke@example.org", "EMERGENCE_SMOKE_PASSWORD": "for this test only"}
        done = subprocess.run(command, env={**os.environ, **secrets}, capture_output=True, text=True, timeout=30, check=False)
        assert done.stdout.splitlines() == ["✅ Backend health check", "✅ Upload document", "✅ Memory clear", "✅ Benchmarks"]
        assert done.returncode == 0
        skipped = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert skipped.returncode == 2
