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
    log = Logbook.current() or Logbook.open(plan.source.root, plan.source.commit.sha)
    with traffic.guarded(plan, log.moved):  # here too: a subflow that ends waits for Prefect's server, and users do not
        return climbed(plan, log)


def climbed(plan: Plan, log: Logbook) -> Verdict:
    """Step by step, until it is decided; what is worse goes back from here."""
    windows, moves = tuple[Window, ...](), list[Move]()
    for step, percent in enumerate(plan.file.canary.steps if plan.file.canary else ()):
        moves.append(traffic.shift(plan, percent, step))
        log.moved(moves[-1])
        with evidence.probing(plan, traffic.own_urls(plan)) as probed:
            window, decision, because = bake(plan, percent, moves[-1].at, probed)
        windows = (*windows, window)
        if decision == "rolled back":
            moves.append(traffic.restore(plan.service, plan.wheel, plan.stable, because))
            log.moved(moves[-1])
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
        traffic.keep_the_wheel(plan)


def _steps(windows: tuple[Window, ...]) -> str:
    return ", ".join(f"{w.percent} % ({w.candidate_errors} errors in {w.candidate_requests} requests)" for w in windows)
