"""An HTTP answer against the check: everything that differs is named, on one line."""

import contextlib
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relais.config import HttpCheck
from relais.contract import at_path, differences, http_finding


@dataclass(frozen=True)
class Came:
    status: int = 200
    text: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.1
    error: str | None = None


def check(**wanted: Any) -> HttpCheck:
    return HttpCheck.model_validate({"get": "/api/health", **wanted})


HEALTHY = '{"status": "ok", "message": "Emergence Backend is running.", "extra": 1}'

FAILURES = [
    pytest.param({}, Came(503), "status 200 expected, 503 came", id="another status"),
    pytest.param({}, Came(403), "it is not open to everybody (deploy.public", id="403 says that it is not public"),
    pytest.param({}, Came(404), "there is no such route", id="404 says that the route is missing"),
    pytest.param({}, Came(302, headers={"Location": "/login"}), "it points to /login", id="a redirect says where to"),
    pytest.param({}, Came(0, error="connection refused"), "connection refused", id="no answer"),
    pytest.param({"within": "1s"}, Came(seconds=2.5), "took 2.50 s, at most 1 s allowed", id="too slow"),
    pytest.param({"json": {"status": "ok"}}, Came(text='{"status": "down"}'), '$.status: expected "ok", got "down"', id="a wrong value"),
    pytest.param({"json": {"status": "ok"}}, Came(text="{}"), '$.status: expected "ok", nothing is there', id="a missing key"),
    pytest.param({"json": {"a": [1, {"c": 2}]}}, Came(text='{"a": [1, {"c": 3}]}'), "$.a[1].c: expected 2, got 3", id="deep"),
    pytest.param({"json": {"ok": True}}, Came(text='{"ok": 1}'), "$.ok: expected true, got 1", id="1 is not true"),
    pytest.param({"json": {"a": []}}, Came(text='{"a": [1]}'), "$.a: expected 0 entries, 1 came", id="a list of another length"),
    pytest.param({"json": {"a": 1}}, Came(text="<html>"), 'JSON expected, "<html>" came', id="no JSON"),
    pytest.param({"json": {"a": 1}}, Came(text=""), "an empty answer", id="an empty answer"),
    pytest.param({"json_path": {"$.items[0].name": "a"}}, Came(text='{"items": []}'), "nothing is there", id="nothing at a path"),
    pytest.param({"body": "Welcome"}, Came(text="Hello"), '"Welcome" is not in the answer', id="a text that is missing"),
    pytest.param({"body": "/^v[0-9]+$/"}, Came(text="version 3"), "is not in the answer", id="a pattern that is missing"),
    pytest.param({"content_type": "text/html"}, Came(headers={"content-type": "text/plain"}), "text/plain came", id="a content type"),
]  # fmt: skip


@pytest.mark.parametrize(("wanted", "came", "said"), FAILURES)
def test_what_is_not_as_expected_fails_and_is_named(wanted: dict[str, Any], came: Came, said: str) -> None:
    finding = http_finding(check(**wanted), came)
    assert (finding.outcome, finding.name, finding.kind) == ("failed", "GET /api/health", "http")
    assert said in finding.detail
    assert "\n" not in finding.detail


PASSES = [
    pytest.param({}, Came(), id="a status alone"),
    pytest.param({"status": 404}, Came(404), id="an expected 404"),
    pytest.param({"json": {"status": "ok", "message": "Emergence Backend is running."}}, Came(text=HEALTHY), id="the seed's health check"),
    pytest.param({"json": {"n": 1}}, Came(text='{"n": 1.0}'), id="1 and 1.0 are one number"),
    pytest.param({"json": [{"id": 1}]}, Came(text='[{"id": 1, "name": "x"}]'), id="entries of a list hold at least this"),
    pytest.param({"json_path": {"$.items[-1]['a-b']": 2, "$": {"items": [{}, {}]}}}, Came(text='{"items": [{}, {"a-b": 2}]}'), id="paths"),
    pytest.param({"body": "/^v[0-9]+$/"}, Came(text="x\nv12\n"), id="a pattern on its line"),
    pytest.param({"content_type": "application/json"}, Came(headers={"Content-Type": "application/json; q=1"}), id="a content type"),
]


@pytest.mark.parametrize(("wanted", "came"), PASSES)
def test_what_holds_at_least_what_is_expected_passes(wanted: dict[str, Any], came: Came) -> None:
    finding = http_finding(check(**wanted), came)
    assert finding.outcome == "passed", finding
    assert finding.detail == f"{came.status} in 0.10 s"


def test_every_difference_is_told_at_once_and_a_long_list_is_counted() -> None:
    finding = http_finding(check(json={f"k{n}": n for n in range(20)}), Came(500, "{}"))
    assert "status 200 expected, 500 came" in finding.detail
    assert "$.k0: expected 0" in finding.detail
    assert finding.detail.endswith("(and 13 more)")


def test_a_long_body_is_cut_in_detail_and_evidence() -> None:
    finding = http_finding(check(json={"a": 1}), Came(text="x" * 100_000))
    assert len(finding.detail) < 200
    assert len(finding.evidence) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(json_values)
def test_any_value_holds_at_least_itself(value: Any) -> None:
    assert list(differences(value, json.loads(json.dumps(value)))) == []


@given(json_values, json_values)
def test_any_two_values_can_be_compared(expected: Any, came: Any) -> None:
    assert all(isinstance(text, str) and "\n" not in text for text in differences(expected, came))


@given(json_values, st.text(alphabet="$.[]'\"ab01-* ", max_size=20))
def test_any_path_gives_a_value_or_says_that_nothing_is_there(value: Any, path: str) -> None:
    with contextlib.suppress(LookupError):
        at_path(value, path)


@given(st.text(max_size=300), st.integers(100, 599))
def test_any_text_is_judged(text: str, status: int) -> None:
    wanted = check(json={"status": "ok"}, json_path={"$.a[0]": 1}, body="/o+k/")
    assert http_finding(wanted, Came(status, text)).outcome in ("passed", "failed")
