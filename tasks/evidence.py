"""Windows of evidence: what the request log, and probes, say of candidate and stable since the last move of traffic."""

import itertools
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Literal

from relais.clients.contract import request
from relais.clients.http import Http
from relais.clients.logs import Logs
from relais.config import TrafficProbes
from relais.model import Plan, Window
from tasks.effects import effect

Side = Literal["candidate", "stable"]

SETTLING = timedelta(seconds=1)  # a new split is not instantaneous; requests under way finish where they began


class Probing:
    """Requests sent alike to both revisions' own URLs, counted by side; what nobody answers is an error."""

    def __init__(self) -> None:
        self.counts = dict.fromkeys(COUNTED, 0)
        self._ended = threading.Event()

    def send(self, side: Side, url: str, probes: TrafficProbes) -> None:
        """Ask in turn, at the file's rate, until it ends."""
        http = Http()
        for wanted in itertools.cycle(probes.http):
            if self._ended.wait(1 / probes.rate):
                return
            answer = request(http, url, wanted, timeout=10.0)
            self.counts[f"{side}_requests"] += 1
            self.counts[f"{side}_errors"] += answer.error is not None or answer.status >= 500

    def end(self) -> None:
        self._ended.set()


COUNTED = ("candidate_requests", "candidate_errors", "stable_requests", "stable_errors")


@contextmanager
def probing(plan: Plan, urls: dict[Side, str]) -> Iterator[Probing]:
    """Probes go out while this lasts, if the release file has any; threads of their own, which no exit waits for."""
    probes, sent = plan.file.canary.probes if plan.file.canary else None, Probing()
    for side, url in urls.items():
        if probes is not None and url:
            threading.Thread(target=sent.send, args=(side, url, probes), daemon=True).start()
    try:
        yield sent
    finally:
        sent.end()


@effect("read evidence", retries=2)
def window(plan: Plan, percent: int, since: datetime, probed: dict[str, int]) -> Window:
    """Requests and errors (5xx) of both sides from `since` until now: users' by the log, and what was probed.

    Tagged-URL and noise traffic in the log is left out, and counted (probes are among it: they count by their own answers).
    """
    begin, end = since + SETTLING, datetime.now(UTC)
    noise = plan.file.canary.noise if plan.file.canary else ()
    stable = plan.stable.by_name()
    counts = {**dict.fromkeys(COUNTED, 0), **probed, "left_out": 0}
    for line in Logs(plan.service.project).requests(plan.service, begin, end):
        side = "candidate" if line.revision == plan.revision else "stable" if line.revision in stable else ""
        if not side or line.tagged(plan.uri) or any(rule.covers(line.status, line.path, line.agent) for rule in noise):
            counts["left_out"] += 1
            continue
        counts[f"{side}_requests"] += 1
        counts[f"{side}_errors"] += line.status >= 500
    return Window(begin=begin, end=end, percent=percent, **counts)
