"""The main job, watched: releases the sample's next version to 100 %, then a broken one that is caught and undone.

`make demo` runs it after `make up`; it may be run again and again.
"""

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId, LogFilter, LogFilterFlowRunId
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment
from prefect.settings import PREFECT_UI_URL

from relais import rollout
from relais.clients.git import Repository
from relais.clients.run import CloudRun
from relais.config import home, load
from relais.errors import RelaisError
from relais.model import ServiceName

ROOT = Path(__file__).resolve().parent
SAMPLE = Path(os.environ.get("RELAIS_SAMPLE") or home() / "sample" / "emergence-app")
TOLD = ("prefect.flow_runs", "prefect.task_runs", "relais")
CHECK = re.compile(r"\S[^|]{0,60} \| ")
LIMIT = 300.0  # seconds that one release of the sample may take


def main() -> int:
    """The whole demonstration; 0 when the good version serves and the broken one serves nobody."""
    sample("repo")
    sample("baseline")
    service = name()
    with users(CloudRun().read(service).uri), get_client(sync_client=True) as prefect:
        title("1. The next version, to 100 %")
        sample("next")
        good = released(prefect)
        after_good = CloudRun().read(service)

        title("2. A broken version (FAULT_ERROR_RATE in its env.yaml): healthy at 0 %, and failing once users reach it")
        sample("break")
        bad = released(prefect)
        sample("mend")
    return told(service, good, bad, undone=CloudRun().read(service).split.same(after_good.split))


def sample(command: str) -> None:
    """One step of the sample's own story (its repository, its baseline, its commits)."""
    done = subprocess.run([sys.executable, ROOT / "emergence" / "lay_out.py", command, SAMPLE], check=False, timeout=300)
    if done.returncode:
        raise SystemExit(done.returncode)


def name() -> ServiceName:
    file = load(SAMPLE / "release.yaml")
    return ServiceName(project=file.project, region=file.region, name=file.service)


@contextmanager
def users(url: str) -> Iterator[None]:
    """A few people use the service meanwhile: some 20 requests a second, over loopback."""
    ended = threading.Event()

    def use() -> None:
        with httpx.Client(timeout=10, trust_env=False) as client:
            while not ended.wait(0.1):
                for path in ("/api/sessions", "/api/memory/status"):
                    try:
                        client.get(url + path)
                    except httpx.HTTPError:
                        continue

    thread = threading.Thread(target=use, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(15)


def released(prefect: SyncPrefectClient) -> FlowRun:
    """One run of the deployment, as the UI's Run button starts it; its log is shown as it comes."""
    run = run_deployment("release/emergence-app", timeout=0, as_subflow=False)
    print(f"  {PREFECT_UI_URL.value()}/runs/flow-run/{run.id}\n", flush=True)  # type: ignore[union-attr]
    seen: set[UUID] = set()
    deadline = time.monotonic() + LIMIT
    while True:
        now = prefect.read_flow_run(run.id)  # type: ignore[union-attr]
        show(prefect, now.id, seen)
        if now.state is not None and now.state.is_final():
            time.sleep(3)  # the last lines of a log arrive late
            show(prefect, now.id, seen)
            return now
        if time.monotonic() > deadline:
            print(f"the run has not ended after {LIMIT:.0f} s (state {now.state_name}): look at it in the UI")
            raise SystemExit(1)
        time.sleep(1)


def show(prefect: SyncPrefectClient, run: UUID, seen: set[UUID]) -> None:
    children = prefect.read_flow_runs(flow_run_filter=FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run])))
    ids = [run, *(child.id for child in children)]
    wanted = LogFilter(flow_run_id=LogFilterFlowRunId(any_=ids))
    for line in prefect.read_logs(wanted, limit=200, offset=max(0, len(seen) - 50)):
        if line.id not in seen:
            seen.add(line.id)
            if line.name in TOLD and not line.message.startswith(("Finished in", "Created", "Engine execution")):
                first, *more = line.message.splitlines() or [""]
                if more or CHECK.match(first):  # documents that were read, and the checks' own output: both are in the UI
                    continue
                print(f"  {line.timestamp:%H:%M:%S}  {first}", flush=True)


def told(service: ServiceName, good: FlowRun, bad: FlowRun, *, undone: bool) -> int:
    """Who serves what, what was written, and where to look."""
    run = CloudRun()
    serving, repo = run.read(service), Repository.open(SAMPLE)
    title("Who serves")
    for revision in run.revisions(service)[:4]:
        print(f"  {revision.name:<34} {revision.percent:>3} %  {revision.digest[:19]}  commit {revision.commit[:7] or '-'}")
    found = rollout.read(serving)
    print(f"  rollout: {found.phase if found else 'none'}; before it served {found.stable if found else 'nobody'}")
    title("What was written (committed and pushed in the sample's repository)")
    for commit in repo.log(6):
        print(f"  {commit}")
    title("Look")
    print(f"  runs       {PREFECT_UI_URL.value()}/runs")
    print(f"  service    {serving.uri}/api/health")
    if admin := os.environ.get("RELAIS_CLOUD_ADMIN"):
        print(f"  cloud      http://{admin}/ (who serves, live)")
    print(f"  documents  {SAMPLE / 'docs' / 'deployments'}")
    well = good.state_name == "Promoted" and bad.state_name == "RolledBack" and undone
    split = "as it was" if undone else "NOT AS IT WAS"
    print(f"\n  good version: {good.state_name}; broken version: {bad.state_name}; the split is {split}")
    return 0 if well else 1


def title(text: str) -> None:
    print(f"\n{text}\n{'-' * len(text)}", flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except RelaisError as problem:
        print(problem, file=sys.stderr)
        sys.exit(1)
