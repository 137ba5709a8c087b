"""The pages that a run shows in the Prefect UI: the plan, the checklist and the verdict, in English and short."""

from collections.abc import Iterable
from datetime import timedelta
from functools import reduce
from operator import add

from relais.documents.facts import Facts
from relais.documents.rendering import render
from relais.documents.words import duration, inline
from relais.model import Finding, Plan, Record, blocking


def plan_page(plan: Plan) -> str:
    """What this release would change: what stands against it first."""
    record = Record(id=plan.id, app=plan.source.root, started=plan.started, plan=plan)
    found = Facts(record).preflight
    changing = [line for line in plan.lines if line.kind not in ("kept", "note")]
    noted = [line for line in plan.lines if line.kind == "note" and not line.what.startswith("after 100 %")]  # `finish` says that
    return render(
        "plan.md.j2", record, "en", plan=plan, against=plan.blockers, blocking=blocking(found), way=_way(plan), finish=_finish(plan),
        changing=sorted(changing, key=lambda line: not line.blocks), groups=_by_kind(found),
        kept=[line for line in plan.lines if line.kind == "kept"], noted=noted,
    )  # fmt: skip


_KINDS = {"git": "Git", "reading": "Reading", "check": "Checks", "gate": "Gates"}


def _by_kind(findings: Iterable[Finding]) -> list[tuple[str, list[Finding]]]:
    """The findings of each kind, in the order of the runbook."""
    groups: dict[str, list[Finding]] = {name: [] for name in _KINDS.values()}
    for finding in findings:
        groups.setdefault(_KINDS.get(finding.kind, inline(finding.kind.capitalize()) or "Other"), []).append(finding)
    return [(name, found) for name, found in groups.items() if found]


def _way(plan: Plan) -> str:
    canary = plan.file.canary
    if plan.first:
        return "100 % as soon as it is ready; there is nothing to compare with, so no canary"
    if canary is None:
        return "100 % at once, after it is verified at 0 %"
    steps = ", ".join(f"{step} %" for step in canary.steps)
    return f"0 % until it is verified, then {steps} for {_span(canary.bake)} to {_span(canary.deadline)} each, then 100 %"


def _finish(plan: Plan) -> str:
    canary = plan.file.canary
    finish = canary.finish if canary else "as-before"
    if plan.first or finish == "latest" or (finish == "as-before" and plan.stable.mode == "latest"):
        return "traffic follows LATEST, so that a later plain deploy serves"
    return f"traffic is pinned to {plan.revision}: a later plain deploy serves nobody"


def _span(span: timedelta) -> str:
    """As it was declared, nearly: 8 s, not 8.0 s; 5 min, not 5 min 00 s."""
    return duration(span.total_seconds()).removesuffix(" 00 s").replace(".0 s", " s")


def checklist_page(record: Record, boxes: Iterable[Finding]) -> str:
    """The final checklist, each box with its evidence."""
    return render("checklist.md.j2", record, "en", boxes=tuple(boxes))


def verdict_page(record: Record) -> str:
    """What the rollout ended with, and on what evidence."""
    windows = Facts(record).windows
    proof = (*(record.rollback or ()), *(record.proof or ()))
    return render("verdict.md.j2", record, "en", total=reduce(add, windows) if windows else None, proof=proof)
