"""How long one release of the sample takes, stage by stage, and how much of it is neither Docker, nor checks, nor declared waits.

`make bench-release` runs it after `make up`. The seconds are Prefect's own (when runs began and ended) and the record's (moves of traffic).
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_UI_URL

from relais.config import home
from relais.model import Record

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = Path(os.environ.get("RELAIS_SAMPLE") or home() / "sample" / "emergence-app")
LIMIT = 300.0  # seconds that one release of the sample may take
LATE = 20.0  # seconds that Prefect's server may need to know the last task run
SECONDS, SHARE = 15.0, 0.20  # the rest may take so long, or this part of the whole, whichever is more


@dataclass(frozen=True)
class Span:
    """Something that lasted from one instant to another."""

    name: str
    begin: datetime
    end: datetime

    @property
    def seconds(self) -> float:
        return (self.end - self.begin).total_seconds()

    def within(self, other: "Span") -> "Span":
        """The part of it that lies in another span; empty where they do not meet."""
        begin = min(max(self.begin, other.begin), other.end)
        return Span(self.name, begin, max(begin, min(self.end, other.end)))


def covered(spans: Iterable[Span]) -> float:
    """The seconds in which at least one of these was going on."""
    seconds, until = 0.0, None
    for span in sorted(spans, key=lambda one: one.begin):
        begin = span.begin if until is None else max(span.begin, until)
        seconds += max(0.0, (span.end - begin).total_seconds())
        until = span.end if until is None else max(span.end, until)
    return seconds


@dataclass(frozen=True)
class Measured:
    """One release as Prefect and its record saw it."""

    whole: Span  # from the click to the last state: the worker's start is in it
    flows: tuple[Span, ...]  # release and its subflows
    tasks: tuple[Span, ...]
    record: Record

    @property
    def docker(self) -> tuple[Span, ...]:
        return tuple(span for span in self.tasks if span.name.startswith(("build ", "push ")))

    @property
    def checks(self) -> tuple[Span, ...]:
        return tuple(span for span in self.tasks if span.name.startswith("check "))

    @property
    def waits(self) -> tuple[Span, ...]:
        """What the release file says that a step lasts at least; longer looking is not a declared wait."""
        plan = self.record.plan
        if plan is None or plan.file.canary is None:
            return ()
        steps, bake = plan.file.canary.steps, plan.file.canary.bake
        ends = [move.at for move in self.record.moves[1:]] + [self.whole.end]
        moved = zip(self.record.moves, ends, strict=True)
        return tuple(Span("bake", m.at, min(m.at + bake, end)) for m, end in moved if m.split.percent(plan.revision) in steps)

    @property
    def stages(self) -> Iterator[tuple[Span, tuple[Span, ...]]]:
        """Each task of the release and each subflow, in order, with its parts; the worker's start before, and what Prefect does after."""
        first, *subflows = self.flows
        yield Span("worker start", self.whole.begin, first.begin), ()
        own = [task for task in self.tasks if not any(task.within(flow).seconds for flow in subflows)]
        for stage in sorted([*own, *subflows], key=lambda span: span.begin):
            yield stage, tuple(t for t in self.tasks if stage in subflows and t.within(stage).seconds)


def main() -> int:
    """Release the sample's next version; 0 when it was promoted and the rest is within its target."""
    for command in ("repo", "baseline", "next"):
        subprocess.run([sys.executable, ROOT / "examples" / "emergence" / "lay_out.py", command, SAMPLE], check=True, timeout=300)
    with get_client(sync_client=True) as prefect:
        run = released(prefect)
        address = f"{PREFECT_UI_URL.value()}/runs/flow-run/{run.id}"
        if run.state_name != "Promoted":
            print(f"the release ended {run.state_name}, so there is nothing to measure: {run.state and run.state.message}\n  {address}")
            return 1
        measured = measure(prefect, run)
    print(f"\n{run.name}: {run.state_name}\n  {address}\n")
    return told(measured)


def released(prefect: SyncPrefectClient) -> FlowRun:
    """One run of the deployment, as the UI's Run button starts it, once it has ended."""
    asked = run_deployment("release/emergence-app", timeout=0, as_subflow=False)
    deadline = time.monotonic() + LIMIT
    while True:
        run = prefect.read_flow_run(asked.id)  # type: ignore[union-attr]
        if run.state is not None and run.state.is_final():
            return run
        if time.monotonic() > deadline:
            raise SystemExit(f"the release has not ended after {LIMIT:.0f} s (state {run.state_name}): look at it in the UI")
        time.sleep(0.5)


def measure(prefect: SyncPrefectClient, run: FlowRun) -> Measured:
    """Everything that Prefect and the record know of a run; the server learns of task runs some seconds late."""
    children = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id])))
    flows = (run, *sorted(children, key=lambda child: str(child.created)))
    deadline, found, before = time.monotonic() + LATE, tuple[Span, ...](), -1
    while (not found or len(found) != before) and time.monotonic() < deadline:
        before = len(found)
        time.sleep(3)
        found = tuple(_tasks(prefect, flows))
    record = next(r for r in _records() if r.run == str(run.id))
    began, ended = run.expected_start_time or run.created, run.end_time
    if began is None or ended is None:
        raise SystemExit(f"Prefect does not know when run {run.id} began and ended")
    spans = tuple(Span(prefect.read_flow(f.flow_id).name, f.start_time, f.end_time) for f in flows if f.start_time and f.end_time)
    return Measured(Span("whole", began, ended), spans, found, record)


def _tasks(prefect: SyncPrefectClient, flows: Iterable[FlowRun]) -> Iterator[Span]:
    for task in prefect.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[flow.id for flow in flows]))):
        subflow = task.state is not None and task.state.state_details.child_flow_run_id is not None
        if task.start_time and task.end_time and not subflow:
            yield Span(task.name, task.start_time, task.end_time)


def _records() -> Iterator[Record]:
    for path in sorted((home() / "records").glob("*.json"), reverse=True):
        yield Record.model_validate_json(path.read_bytes())


def told(measured: Measured) -> int:
    """The table, and the figure with its target."""
    whole = measured.whole.seconds
    kinds = {"Docker": measured.docker, "checks": measured.checks, "declared waits": measured.waits}
    declared = [span for spans in kinds.values() for span in spans]
    print(f"{'':<34} {'seconds':>8} {'the rest':>9}")
    seen: list[Span] = []
    for stage, parts in measured.stages:
        seen.append(stage)
        _row(stage.name, stage.seconds, stage.seconds - covered(span.within(stage) for span in declared))
        for name, spans in _by_name(parts).items():
            _row(f"  {name}" + (f" ({len(spans)} times)" if len(spans) > 1 else ""), covered(spans))
    between = whole - covered(seen)
    _row("between stages, and the run's end", between, between)
    rest = whole - covered(declared)
    _row("whole", whole, rest)
    print("\n" + ", ".join(f"{name} {covered(spans):.1f} s" for name, spans in kinds.items()))
    target = max(SECONDS, SHARE * whole)
    met = rest <= target
    print(f"the rest: {rest:.1f} s, {rest / whole:.0%} of {whole:.1f} s; target: at most {target:.1f} s: {'met' if met else 'missed'}")
    return 0 if met else 1


def _by_name(spans: Iterable[Span]) -> dict[str, list[Span]]:
    named: dict[str, list[Span]] = {}
    for span in sorted(spans, key=lambda one: one.begin):
        named.setdefault(span.name, []).append(span)
    return named


def _row(name: str, seconds: float, rest: float | None = None) -> None:
    print(f"{name[:34]:<34} {seconds:>8.2f}" + ("" if rest is None else f" {max(0.0, rest):>9.2f}"))


if __name__ == "__main__":
    sys.exit(main())
