"""What people see in Prefect's own UI: a release's run and its pages, and the form that starts the next one, in a real browser."""

import contextlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.settings import PREFECT_API_URL, temporary_settings

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "flows"))

from team import Clients, Team, eventually  # noqa: E402

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
POOL = "relais"  # as in prefect.yaml
FIELDS = {
    "app": "a directory that holds a release.yaml, or a Git URL",
    "ref": "The commit, branch or tag to release.",
    "until": "stops with the candidate at 0 %",
    "plan_only": "nothing is built, nothing changes",
    "Title": "What this release is, in one line.",
    "Checks to skip": "By name; recorded as skipped, and by whom.",
    "Least time at a step": "for every step of the canary",
}


@dataclass(frozen=True)
class Seen:
    """A finished release, and where it is shown."""

    team: Team
    ui: str
    run: FlowRun
    deployment: str
    worker_log: Path


@pytest.fixture(scope="module")
def server(free_port: Callable[[], int], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prefect server with its UI, which the tests' usual one does without: its API's address."""
    folder, port = tmp_path_factory.mktemp("server"), free_port()
    api = f"http://127.0.0.1:{port}/api"
    alone = {"PREFECT_HOME": str(folder / "home"), "PREFECT_SERVER_API_PORT": str(port), "PREFECT_SERVER_API_HOST": "127.0.0.1"}
    process = prefect(folder / "server.log", api, "server", "start", **alone)

    def answers() -> bool:
        assert process.poll() is None, (folder / "server.log").read_text()
        with contextlib.suppress(httpx.HTTPError):
            return httpx.get(f"{api}/health", timeout=5, trust_env=False).is_success
        return False

    try:
        eventually(answers, 60)
        yield api
    finally:
        stopped(process)


@pytest.fixture(scope="module")
def seen(cloud: "object", base_image: str, server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seen]:
    """A team's first release, run on a server whose deployment and worker are there for the next one."""
    folder, host = tmp_path_factory.mktemp("browser"), cloud.host  # type: ignore[attr-defined]
    team = Team(folder / "shop", Clients(host), "", base_image, folder / "home", server)
    around = {
        "CLOUDRUN_EMULATOR_HOST": host, "RELAIS_HOME": str(team.home), "RELAIS_BY": "Tester", "RELAIS_ROOT": str(ROOT),
        "RELAIS_SAMPLE": str(team.root), "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch, temporary_settings({PREFECT_API_URL: server}), get_client(sync_client=True) as client:
        for name, value in around.items():
            patch.setenv(name, value)
        team.lay_out()
        client.create_work_pool(WorkPoolCreate(name=POOL, type="process"))
        deploying = prefect(folder / "deploy.log", server, "--no-prompt", "deploy", "--all")
        worker = prefect(folder / "worker.log", server, "worker", "start", "--pool", POOL, "--type", "process")
        try:
            released = team.start_release(changes={"title": "The shop opens"})  # a process talks to one server all its life
            assert released.wait(90) == 0, (folder / "release.log").read_text()
            assert deploying.wait(60) == 0, (folder / "deploy.log").read_text()
            run = client.read_flow_run(UUID(team.record.run))
            deployment = client.read_deployment_by_name("release/emergence-app")
            assert worker.poll() is None, (folder / "worker.log").read_text()
            yield Seen(team, server.removesuffix("/api"), run, str(deployment.id), folder / "worker.log")
        finally:
            stopped(deploying, worker)


def prefect(log: Path, api: str, *arguments: str, **more: str) -> "subprocess.Popen[bytes]":
    """Prefect's command line, as a process."""
    around = {**os.environ, "PREFECT_API_URL": api, "PREFECT_WORKER_QUERY_SECONDS": "1", **more}
    command = [sys.executable, "-m", "prefect", *arguments]
    with log.open("ab") as out:
        return subprocess.Popen(command, cwd=ROOT, env=around, stdin=subprocess.DEVNULL, stdout=out, stderr=out)


def stopped(*processes: "subprocess.Popen[bytes]") -> None:
    for process in processes:
        process.terminate()
    for process in processes:
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


@pytest.fixture(scope="module")
def page(chromium: str) -> Iterator[Page]:
    """One window of a browser that talks to nobody else."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(FLAGS))
        window = browser.new_page(viewport={"width": 1440, "height": 1000})
        window.set_default_timeout(20_000)
        yield window
        browser.close()


def test_the_page_of_a_run_shows_its_name_its_state_and_its_tasks(seen: Seen, page: Page) -> None:
    page.goto(f"{seen.ui}/runs/flow-run/{seen.run.id}")
    expect(page.get_by_text(seen.run.name).first).to_be_visible(timeout=20_000)
    assert seen.run.name.startswith(f"{seen.team.service.name}@")
    expect(page.get_by_text("Promoted", exact=True).first).to_be_visible()
    page.get_by_text("Task Runs", exact=True).click()
    for task in ("build image", "push image", "deploy at 0 %", "wait until ready", "verify at 0 %", "validate production"):
        expect(page.get_by_text(task, exact=True).first).to_be_visible()


def test_the_artifacts_of_a_run_are_its_plan_its_checklist_and_its_report(seen: Seen, page: Page) -> None:
    page.goto(f"{seen.ui}/runs/flow-run/{seen.run.id}?tab=Artifacts")
    page.get_by_text("Artifacts", exact=True).click()
    for key in ("plan", "checklist", "report"):
        expect(page.get_by_text(key, exact=True)).to_have_count(1)
    expect(page.get_by_text(re.compile("^record-"))).to_have_count(1)  # one card, however often it has changed
    page.get_by_text("plan", exact=True).click()
    expect(page.get_by_role("heading", name="Plan: The shop opens")).to_be_visible()
    expect(page.get_by_role("heading", name="What was looked at")).to_be_visible()


def test_the_form_says_what_each_field_is_and_starts_a_run_that_only_plans(seen: Seen, page: Page) -> None:
    seen.team.change_env("feat: another colour")
    page.goto(f"{seen.ui}/deployments/deployment/{seen.deployment}/run")
    for title, description in FIELDS.items():
        expect(page.get_by_text(re.compile(rf"^{title}( \(Optional\))?$"))).to_be_visible()
        expect(page.get_by_text(description).first).to_be_visible()
    page.get_by_role("switch").first.click()
    page.get_by_role("button", name="Submit").click()
    run = _planned_soon(seen)
    assert (run.state_name, run.parameters["plan_only"]) == ("Planned", True), run.state
    assert len(seen.team.revisions()) == 1


def _planned_soon(seen: Seen) -> FlowRun:
    try:
        return eventually(lambda: _planned(seen), 90)
    except AssertionError as late:
        raise AssertionError(f"{late}; the worker said:\n{seen.worker_log.read_text()[-3000:]}") from None


def _planned(seen: Seen) -> FlowRun | None:
    """The run that the form has started, once it has ended."""
    wanted = DeploymentFilter(id=DeploymentFilterId(any_=[UUID(seen.deployment)]))
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(deployment_filter=wanted)
    return next((run for run in found if run.state is not None and run.state.is_final()), None)
