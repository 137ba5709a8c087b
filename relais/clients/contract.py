"""The contract, asked: requests to a URL and the revision's log, each answer judged by `relais.contract`."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

from relais import contract
from relais.clients.http import Answer, Http
from relais.clients.logs import Logs
from relais.config import HttpCheck, HttpRequest, LogExpectation
from relais.errors import Denied, Unavailable
from relais.model import Finding, ServiceName

PAUSE = 0.5  # seconds between two looks


def request(http: Http, url: str, wanted: HttpRequest, *, timeout: float = 30.0) -> Answer:
    """Send one request of the release file; headers that need a secret are left out where it is not given."""
    headers = {name: header.text for name, header in wanted.headers.items() if header.secret is None}
    return http.ask(
        wanted.method.upper(), url.rstrip("/") + wanted.path, headers=headers, json=wanted.json_, body=wanted.body, timeout=timeout
    )


def ask(url: str, checks: Sequence[HttpCheck], *, patience: float) -> tuple[Finding, ...]:
    """Every check side by side, each asked again for `patience` seconds while the revision warms up."""
    if not checks:
        return ()
    with ThreadPoolExecutor(max_workers=min(8, len(checks))) as pool:
        found = pool.map(lambda check: _patiently(url, check, patience), checks)
        return tuple(finding for findings in found for finding in findings)


def _patiently(url: str, check: HttpCheck, patience: float) -> list[Finding]:
    http, deadline = Http(), time.monotonic() + patience
    while True:
        if check.after is not None:
            request(http, url, check.after)
        answer = request(http, url, check.request, timeout=check.within.total_seconds() + 5)
        findings = [contract.http_finding(check, answer)]
        if check.metrics and findings[0].outcome == "passed":
            findings += contract.metric_findings(check.metrics, contract.parse_metrics(answer.text))
        warming = answer.error is not None or answer.status >= 500
        if not warming or not any(f.blocks for f in findings) or time.monotonic() > deadline:
            return findings
        time.sleep(PAUSE)


def read_log(logs: Logs, service: ServiceName, revision: str, wanted: LogExpectation, since: datetime) -> tuple[Finding, ...]:
    """What the revision's log must and must not hold, looked for until it is there or its time is over."""
    if not wanted.expect and not wanted.forbid:
        return ()
    deadline = time.monotonic() + wanted.within.total_seconds()
    while True:
        try:
            lines = [line.text for line in logs.revision_lines(service, revision, since, limit=1000)]
        except (Unavailable, Denied) as problem:
            if time.monotonic() > deadline:
                return (Finding(name="log", kind="logs", outcome="not proven", detail=f"the log cannot be read: {problem.what}"),)
            time.sleep(PAUSE)
            continue
        done = time.monotonic() > deadline
        findings = tuple(contract.log_findings(wanted, lines, done))
        if done or all(f.outcome == "passed" for f in findings) or any(f.outcome == "failed" for f in findings):
            return findings
        time.sleep(PAUSE)


def sampled(url: str, path: str) -> contract.Metrics:
    """The metrics that a URL publishes now; none where it does not answer."""
    answer = Http().ask("GET", url.rstrip("/") + path, timeout=10.0)
    return contract.parse_metrics(answer.text if answer.error is None and answer.status == 200 else "")
