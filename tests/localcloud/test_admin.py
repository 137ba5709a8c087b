"""The admin endpoint: it speaks in sentences, and a web page of another origin can neither read nor change anything."""

import json
import re
import signal
from typing import Any

import httpx
import pytest
from clouds import ROOT, Cloud

from localcloud.admin import faultkinds

LATER = {"kind": "delay", "seconds": 1}


@pytest.mark.parametrize(
    ("fault", "what", "remedy"),
    [
        ({}, "'kind' is missing.", "Say what shall go wrong"),
        ({"kind": "eror"}, "There is no fault 'eror'.", "Did you mean 'error'?"),
        ({**LATER, "metod": "x"}, "There is no 'metod' here.", "Did you mean 'method'?"),
        ({**LATER, "method": "Services/UpdateServices"}, "No method here is called", "Did you mean 'Services/UpdateService'?"),
        ({"kind": "error"}, "'code' is missing.", "a code such as UNAVAILABLE"),
        ({"kind": "error", "code": "UNAVAILABEL"}, "'UNAVAILABEL' is not the name of an error code.", "Did you mean 'UNAVAILABLE'?"),
        ({"kind": "delay", "seconds": "2"}, "'2' is not possible.", "It takes a number from 0 to 600."),
        ({"kind": "delay", "seconds": -1}, "-1 is not possible.", "It takes a number from 0 to 600."),
        ({"kind": "error", "code": []}, "[] is not the name of an error code.", "There is"),
        ({**LATER, "times": True}, "True is not possible.", "It takes a whole number from 0"),
        ({"kind": "drop-answer", "how": "slam"}, "'slam' is not possible.", "closed"),
        ([], "'kind' is missing.", "Say what shall go wrong"),
    ],
)
def test_what_cannot_be_asked_is_said_with_what_would_be_right(cloud: Cloud, fault: Any, what: str, remedy: str) -> None:
    answer = cloud.request("POST", "/faults", fault)
    assert answer.status_code == 400
    assert what in answer.json()["what"]
    assert "POST /faults" in answer.json()["where"] or "method" in answer.json()["where"]
    assert remedy in answer.json()["remedy"]
    assert cloud.ask("GET", "/faults") == {"faults": []}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example:80"}, 403),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
    ],
)
def test_a_web_page_of_another_origin_is_refused(cloud: Cloud, headers: dict[str, str], status: int) -> None:
    answer = cloud.request("POST", "/faults", LATER, **headers)
    assert answer.status_code == status
    assert set(answer.json()) == {"what", "where", "remedy"}
    assert cloud.ask("GET", "/faults") == {"faults": []}


@pytest.mark.parametrize(
    "headers",
    [{"Host": "["}, {"Host": "evil.example"}, {"Host": "127.0.0.1.evil.example"}, {"Origin": "http://["}, {"Origin": "http://evil.example"}],
)
def test_a_page_under_another_name_reads_nothing_and_switches_nothing(cloud: Cloud, headers: dict[str, str]) -> None:
    for verb, path in (("GET", "/"), ("GET", "/state"), ("DELETE", "/faults")):
        answer = cloud.request(verb, path, **headers)
        assert answer.status_code == 403
        assert set(answer.json()) == {"what", "where", "remedy"}


@pytest.mark.parametrize(
    ("body", "charset"),
    [
        (b"\xff", "utf-8"),
        (b"{}", "klingon"),
        (b"[" * 100_000, "utf-8"),
        (b'{"permission": "\\ud800"}', "utf-8"),
        (b"1" * 5000, "utf-8"),
    ],
    ids=["no UTF-8", "no charset", "too deep", "half a character", "too long a number"],
)
def test_a_body_that_is_no_json_is_refused_and_the_page_goes_on(cloud: Cloud, body: bytes, charset: str) -> None:
    where, kind = f"http://{cloud.admin}/denials", f"application/json; charset={charset}"
    answer = httpx.post(where, content=body, headers={"Content-Type": kind}, trust_env=False, timeout=10)
    assert answer.status_code == 400
    assert "The body is not JSON" in answer.json()["what"]
    assert cloud.request("GET", "/").status_code == 200


def test_other_paths_and_verbs_are_refused_in_a_sentence(cloud: Cloud) -> None:
    unknown = cloud.request("GET", "/fault")
    assert (unknown.status_code, unknown.json()["remedy"]) == (404, "Did you mean '/faults'?")
    assert cloud.request("PUT", "/faults", {}).json()["remedy"] == "It takes DELETE, GET, POST."
    assert cloud.request("DELETE", "/faults/fault-0").status_code == 404


def test_a_fault_is_told_and_deleted(cloud: Cloud) -> None:
    fault = cloud.fault("delay", seconds=2, method="Services/*")
    told = cloud.ask("GET", f"/faults/{fault}")
    assert told == {
        "id": fault, "kind": "delay", "times": 1, "client": "", "method": "Services/*", "resource": "*", "seconds": 2.0,
        "met": {"count": 0, "latest": []}, "spent": False,
    }  # fmt: skip
    assert cloud.ask("DELETE", f"/faults/{fault}")["id"] == fault
    assert cloud.ask("GET", "/faults") == {"faults": []}


def test_every_fault_that_the_page_shows_can_be_asked_for_and_every_kind_is_shown() -> None:
    page = (ROOT / "localcloud" / "README.md").read_text(encoding="utf-8")
    shown = [faultkinds.read(json.loads(body)).kind for body in re.findall(r'`(\{"kind".*?\})`', page)]
    assert set(shown) == set(faultkinds.KINDS)


def test_a_restart_keeps_the_address_forgets_faults_and_behaves_as_the_command_line_says(cloud: Cloud) -> None:
    before, options = cloud.admin, cloud.options
    cloud.fault("delay", seconds=1)
    cloud.stop(signal.SIGKILL)
    cloud.options = ("--strict",)
    cloud.start()
    cloud.options = options
    assert cloud.admin == before
    assert cloud.ask("GET", "/faults") == {"faults": []}
    assert cloud.ask("GET", "/behaviour") == {
        "quotas": {"run_writes": 180, "run_reads": 3000, "log_reads": 60}, "registry_auth": True,
        "metrics": {"period_s": 60.0, "delay_s": 180.0}, "log_delay_s": 5, "startup_seconds": 240.0,
    }  # fmt: skip
    assert cloud.ask("GET", "/state")["behaviour"] == {}  # nobody switched anything
