"""The canary: shift, wait, look, until the candidate may have everything or must give it back."""

import time
from datetime import UTC, datetime

from prefect import flow

from relais import rollout
from relais.model import Move, Plan, Verdict, Window
from tasks import evidence, traffic
from tasks.effects import say
from tasks.logbook import Logbook


@flow(name="canary", flow_run_name="{plan.revision}")
def canary(plan: Plan) -> Verdict:
    """Give the candidate more and more traffic, as long as what is seen allows it.

    Args:
        plan: The release's plan; its release file holds the steps and the rules.
    """
    log, windows = Logbook.current(), tuple[Window, ...]()
    moves: list[Move] = []
    for step, percent in enumerate(plan.file.canary.steps if plan.file.canary else ()):
        moves.append(traffic.shift(plan, percent, step))
        if log is not None:
            log.moved(moves[-1])
        with evidence.probing(plan, traffic.own_urls(plan)) as probed:
            window, decision, because = bake(plan, percent, moves[-1].at, probed)
        windows = (*windows, window)
        if decision != "advance":
            return Verdict(word="held" if decision == "held" else "rolled back", because=because, windows=windows, moves=tuple(moves))
    return Verdict(word="promoted", because=f"not worse at {_steps(windows)}", windows=windows, moves=tuple(moves))


def bake(plan: Plan, percent: int, since: datetime, probed: evidence.Probing) -> tuple[Window, rollout.Decision, str]:
    """Wait at one step, look again and again, and decide by the file's rules."""
    rules = plan.file.canary
    assert rules is not None
    pause = min(15.0, max(1.0, rules.bake.total_seconds() / 6))
    while True:
        time.sleep(pause)
        window = evidence.window(plan, percent, since, dict(probed.counts))
        elapsed = datetime.now(UTC) - since
        judgement = rollout.judge(window, rules.judge.slo)
        decision = rollout.decide(judgement, elapsed, rules)
        say(f"{percent} % for {elapsed.total_seconds():.0f} s: {judgement.word} ({judgement.because})")
        if decision != "wait":
            return window, decision, f"at {percent} %: {judgement.word}, {judgement.because}"
        traffic.renew(plan)


def _steps(windows: tuple[Window, ...]) -> str:
    return ", ".join(f"{w.percent} % ({w.candidate_errors} errors in {w.candidate_requests} requests)" for w in windows)
