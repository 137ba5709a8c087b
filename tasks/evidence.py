"""Windows of evidence: what the request log says of candidate and stable since the last move of traffic."""

from datetime import UTC, datetime, timedelta

from relais.clients.logs import Logs
from relais.config import Noise
from relais.model import Plan, Window
from tasks.effects import effect

SETTLING = timedelta(seconds=1)  # a new split is not instantaneous; requests under way finish where they began


@effect("read evidence", retries=2)
def window(plan: Plan, percent: int, since: datetime) -> Window:
    """Requests and errors (5xx) of both sides from `since` until now; tagged-URL and noise traffic is left out, and counted."""
    begin, end = since + SETTLING, datetime.now(UTC)
    noise = plan.file.canary.noise if plan.file.canary else ()
    stable = plan.stable.by_name()
    counts = {"candidate_requests": 0, "candidate_errors": 0, "stable_requests": 0, "stable_errors": 0, "left_out": 0}
    for line in Logs(plan.service.project).requests(plan.service, begin, end):
        side = "candidate" if line.revision == plan.revision else "stable" if line.revision in stable else ""
        if not side or line.tagged(plan.uri) or any(_matches(rule, line.status, line.path, line.agent) for rule in noise):
            counts["left_out"] += 1
            continue
        counts[f"{side}_requests"] += 1
        counts[f"{side}_errors"] += line.status >= 500
    return Window(begin=begin, end=end, percent=percent, **counts)


def _matches(rule: Noise, status: int, path: str, agent: str) -> bool:
    return (
        (rule.status is None or rule.status == status)
        and (rule.path is None or rule.path in path)
        and (rule.agent is None or rule.agent in agent)
    )
