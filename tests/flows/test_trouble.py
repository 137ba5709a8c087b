"""Bad input and trouble: each ends in one clear error, a failed run that says it, and production as it was."""

import contextlib
import logging
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from between import between
from google.cloud.artifactregistry_v1 import Repository
from prefect.client.schemas.objects import State
from team import Clients, Team

from flows.release import release

Production = tuple[object, ...]


@pytest.fixture
def said() -> Iterator[list[str]]:
    """What the run's log says, tracebacks included."""
    lines: list[str] = []

    class Kept(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler, loggers = Kept(), [logging.getLogger(name) for name in ("prefect.flow_runs", "prefect.task_runs", "relais")]
    for logger in loggers:
        logger.addHandler(handler)
    yield lines
    for logger in loggers:
        logger.removeHandler(handler)


def production(team: Team) -> Production:
    """What must not change: the service's own version, its split, its newest revision."""
    found = team.get()
    return found.etag, found.latest_created_revision, [(t.revision, t.percent, t.tag) for t in found.traffic], dict(found.annotations)


def ends(state: State[Any], said: list[str], name: str = "Refused") -> str:
    """The sentence that a failed run ends with, which its log says too, without any traceback."""
    assert state.is_failed(), state
    message = str(state.message)
    assert state.name == name, (state.name, message)
    log = "\n".join(said)
    assert message in log
    assert "Traceback" not in log, log
    assert not [line for line in said if " -> " in line and "\n  -> " not in message], log
    assert len(message) < 1500, message
    return message


# -- the release file ------------------------------------------------------------------------------------------------------

FILES = {
    "a misspelt key": ("region:", "regoin:", r"release\.yaml:3: regoin: .*-> write region"),
    "a misspelt key deep inside": ("    expect:", "    expects:", r"release\.yaml:\d+: .*expects.*\n  -> .*expect"),
    "a missing key": ("\nrepository: app\n", "\n", r"release\.yaml(:\d+)?: .*repository"),
    "a value of another kind": ("bake: 2s", "bake: soon", r"release\.yaml:\d+: .*soon.*\n  -> "),
}


@pytest.mark.parametrize(("old", "new", "wanted"), FILES.values(), ids=FILES)
def test_in_the_release_file_is_refused_by_file_and_line(team: Team, said: list[str], old: str, new: str, wanted: str) -> None:
    file = team.root / "release.yaml"
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))
    message = ends(team.release(), said)
    assert re.search(wanted, message), message


def test_every_problem_of_the_release_file_is_told_at_once(team: Team, said: list[str]) -> None:
    file = team.root / "release.yaml"
    file.write_text(file.read_text().replace("region:", "regoin:", 1).replace("bake: 2s", "bake: soon", 1))
    message = ends(team.release(), said)
    assert "regoin" in message
    assert "soon" in message


def test_a_release_file_that_is_not_there_is_named_with_its_path(team: Team, said: list[str]) -> None:
    (team.root / "release.yaml").unlink()
    message = ends(team.release(), said)
    assert str(team.root / "release.yaml") in message


@pytest.mark.usefixtures("team")
def test_a_directory_that_is_not_there_is_named(said: list[str], tmp_path: Path) -> None:
    missing = str(tmp_path / "nowhere")
    message = ends(release(missing, return_state=True), said)
    assert missing in message
    assert "\n  -> " in message


# -- the repository and the machine ----------------------------------------------------------------------------------------


def dirty(team: Team) -> None:
    team.write("app.py", "# changed, and not committed\n")


def untracked(team: Team) -> None:
    team.commit("chore: the builder gets more", {".dockerignore": "*\n!app.py\n!extra.py\n"})
    team.write("extra.py", "# never committed\n")


def unpushed(team: Team) -> None:
    team.commit("feat: not pushed yet", {"app.py": "# a\n"}, push=False)


def on_another_branch(team: Team) -> None:
    team.git("switch", "--quiet", "--create", "spike")
    team.commit("feat: a spike", {"app.py": "# a\n"}, push=False)


def without_dockerfile(team: Team) -> None:
    team.git("rm", "--quiet", "Dockerfile")
    team.commit("chore: no Dockerfile")


def expecting(team: Team) -> None:
    team.release_file(preflight={"git": {"commits": ["abc1234"]}})


def without_repository(team: Team) -> None:
    team.release_file(repository="apps")


def without_engine(team: Team) -> None:
    pass


GATES = {
    "a dirty tree": (dirty, "Refused", r"app\.py"),
    "a file of the image that no commit has": (untracked, "Refused", r"untracked files: would enter the image, .*extra\.py.*commit them"),
    "a commit that is not pushed": (unpushed, "Refused", r"1 commit not on origin/main: git push origin main"),
    "a wrong branch": (on_another_branch, "Refused", r"on spike, and [0-9a-f]{7} is not on main"),
    "a missing Dockerfile": (without_dockerfile, "Refused", r"Dockerfile: there is no such file.*set build.dockerfile"),
    "an unknown expected commit": (expecting, "Refused", r"abc1234"),
    "a repository that Artifact Registry does not have": (without_repository, "Refused", r"gcloud artifacts repositories create apps"),
}


@pytest.mark.parametrize(("make", "name", "wanted"), GATES.values(), ids=GATES)
def test_is_refused_before_anything_is_built(team: Team, said: list[str], make: Any, name: str, wanted: str) -> None:
    team.baseline()
    make(team)
    before = production(team)
    message = ends(team.release(), said, name)
    assert re.search(wanted, message), message
    assert production(team) == before
    assert team.record.build is None


def test_an_unknown_ref_is_refused_with_names_like_it(team: Team, said: list[str]) -> None:
    message = ends(team.release(ref="mian"), said)
    assert re.search(r"there is no commit 'mian'\n  -> .*main", message)


def test_a_docker_engine_that_does_not_answer_is_refused_with_what_to_do(
    team: Team, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    before = production(team)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    message = ends(team.release(), said)
    assert re.search(r"no Docker Engine answers", message)
    assert production(team) == before


def test_everything_that_stands_against_a_release_is_told_at_once(
    team: Team, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/docker.sock")
    team.release_file(
        repository="apps", preflight={"git": {"commits": ["abc1234"]}, "checks": [{"name": "unit", "run": "false"}]}
    )
    unpushed(team)
    dirty(team)
    message = ends(team.release(), said)
    for part in ("abc1234", "not on origin/main", "app.py", "no Docker Engine", "repository apps", "unit"):
        assert part in message


def test_a_local_cloud_that_does_not_answer_is_told_with_its_address_and_how_to_start_it(
    team: Team, said: list[str], free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    before = production(team)
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", f"127.0.0.1:{free_port()}")
    message = ends(team.release(), said)
    assert re.search(r"nobody answers.*see that a local cloud answers at 127\.0\.0\.1:\d+: `make up` starts it", message)
    assert production(team) == before


# -- the team's own checks -------------------------------------------------------------------------------------------------


def checked(team: Team, **check: Any) -> None:
    team.release_file(preflight={"checks": [{"name": "unit", **check}]})


def test_a_required_check_that_is_red_refuses_the_release(team: Team, said: list[str]) -> None:
    checked(team, run="sh -c 'echo 1 failed, 2 passed in 0.1s; exit 1'")
    message = ends(team.release(plan_only=True), said)
    assert re.search(r"unit: .*exit 1", message)


def test_a_check_that_does_not_end_is_ended_and_named_with_its_limit(team: Team, said: list[str]) -> None:
    checked(team, run="sleep 60", timeout="1s")
    message = ends(team.release(plan_only=True), said)
    assert re.search(r"unit: no end after 1 s", message)


def test_a_command_that_is_not_there_is_named(team: Team, said: list[str]) -> None:
    checked(team, run="pytset -q")
    message = ends(team.release(plan_only=True), said)
    assert re.search(r"unit: .*pytset", message)


def test_a_red_check_that_is_not_required_or_is_waived_is_told_and_lets_the_release_through(team: Team, said: list[str]) -> None:
    checks = [{"name": "unit", "run": "false", "required": False}, {"name": "style", "run": "false"}]
    team.release_file(preflight={"checks": checks, "waivers": [{"check": "style", "because": "known", "by": "Ada"}]})
    state = team.release(plan_only=True)
    assert state.name == "Planned", state.message
    found = {finding.name: finding for finding in team.record.plan.findings}  # type: ignore[union-attr]
    assert (found["unit"].outcome, found["unit"].required) == ("failed", False)
    assert found["style"].outcome == "waived"
    assert "known" in found["style"].detail
    assert "Ada" in found["style"].detail
    assert any("unit: failed" in line for line in said)


# -- what serves -----------------------------------------------------------------------------------------------------------


def test_less_memory_than_what_serves_is_refused_with_the_word_that_allows_it(team: Team, said: list[str]) -> None:
    team.baseline()
    before = production(team)
    team.release_file(deploy={"memory": "128Mi"})
    message = ends(team.release(), said)
    assert re.search(r'lowered memory: 512Mi -> 128Mi \(allow it with deploy\.allow: \["lower memory"\]\)', message)
    assert production(team) == before


def test_a_variable_that_the_file_does_not_name_is_kept_and_a_held_release_holds_up_the_next(team: Team, said: list[str]) -> None:
    first = team.baseline(KEPT="yes")
    assert team.release(until="verified").name == "Held"
    held = team.record
    candidate = team.revisions()[held.deploy.revision]  # type: ignore[union-attr]
    assert {variable.name: variable.value for variable in candidate.containers[0].env} == {"COLOUR": "blue", "KEPT": "yes"}
    before = production(team)

    team.change_env()
    message = ends(team.release(), said)
    assert re.search(rf"release {held.id} of [0-9a-f]{{7}} holds the service since .* UTC \(held, owner .*\)\n  -> .*promote", message)
    assert production(team) == before
    assert team.who_serves() == {first: 100}


def test_a_hotfix_during_the_build_is_left_alone_and_ends_the_release_before_any_write(
    team: Team, said: list[str], cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 3."""
    first = team.baseline()
    hotfix = f"{team.service.name}-hotfix"

    def mend() -> None:
        team.deploy(hotfix)
        team.split({hotfix: 100})

    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        way.before("GetTag", mend)  # the push is verified: the plan is drawn, and the deploy comes next
        message = ends(team.release(), said)
        assert way.count("UpdateService") == 0
    assert re.search(rf"traffic changed since the plan: it was {first} 100 %, and is {hotfix} 100 % now\n  -> .*", message)
    assert team.who_serves() == {hotfix: 100}
    assert team.rollout() == {}


def test_a_foreign_write_just_before_the_deploy_is_read_again_and_decided_again(
    team: Team, cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rule 3: the etag is of the read that the recorded split comes from."""
    first = team.baseline()
    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        way.before("UpdateService", lambda: team.split({first: 100}, {"ours": first}))
        state = team.release(until="verified")
    assert state.name == "Held", state.message
    assert team.tags()["ours"] == first
    assert team.who_serves() == {first: 100}


# -- the image and the registry --------------------------------------------------------------------------------------------


def test_an_image_for_arm64_is_refused_before_it_is_built(team: Team, said: list[str]) -> None:
    team.baseline()
    before = production(team)
    team.commit("feat: another machine", {"Dockerfile": f"FROM --platform=linux/arm64 {team.base_image}\nCOPY app.py /app.py\n"})
    message = ends(team.release(), said, "Failed")
    assert re.search(r"Dockerfile: its last FROM asks for linux/arm64, and Cloud Run needs linux/amd64\n  -> remove --platform", message)
    assert production(team) == before


def test_a_build_that_fails_names_its_step_and_what_it_said(team: Team, said: list[str]) -> None:
    team.baseline()
    before = production(team)
    team.commit("feat: cannot be built", {"Dockerfile": f"FROM {team.base_image}\nRUN echo not today >&2; exit 7\n"})
    message = ends(team.release(), said, "Failed")
    assert re.search(r"(?s)RUN echo not today.* exit code:? 7.*not today", message)
    assert production(team) == before


def test_a_registry_that_is_down_at_the_push_is_named(
    team: Team, said: list[str], cloud: Any, free_port: Callable[[], int], monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    before = production(team)
    dead = f"localhost:{free_port():05d}"
    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        way.change("GetRepository", lambda answer: moved_registry(answer, dead))
        message = ends(team.release(), said, "Failed")
    assert re.search(rf"{dead}.*connection refused.*\n  -> the registry {dead} does not answer", message)
    assert production(team) == before


def moved_registry(answer: bytes, host: str) -> bytes:
    found: Any = Repository.deserialize(answer)
    found.registry_uri = f"{host}/{found.registry_uri.partition('/')[2]}"
    return Repository.serialize(found)


# -- the revision ----------------------------------------------------------------------------------------------------------

REVISIONS = {
    "exits at start": ({"FAULT_EXIT": "1"}, r"did not start: .*\n  -> .*RuntimeError: the orders cannot be read"),
    "answers the wrong JSON": ({"FAULT_HEALTH": "ill"}, r"the contract is not met at 0 %: .*GET /api/health.*ill"),
    "publishes too few metrics": ({"FAULT_METRICS": "1"}, r"the contract is not met at 0 %: .*shop_orders_total"),
}


@pytest.mark.parametrize(("env", "wanted"), REVISIONS.values(), ids=REVISIONS)
def test_a_revision_serves_nobody_that(team: Team, said: list[str], env: dict[str, str], wanted: str) -> None:
    first = team.baseline()
    team.change_env(**env)
    message = ends(team.release(), said, "Failed")
    assert re.search(wanted, message), message
    untouched(team, first)


def untouched(team: Team, first: str) -> None:
    """Nobody was served by the candidate, and the next release is free to go."""
    assert team.who_serves() == {first: 100}
    assert team.rollout()["phase"] == "done"
    assert team.tags() == {}
    assert [move.split.percent(team.record.plan.revision) for move in team.record.moves] == []  # type: ignore[union-attr]


def test_a_revision_that_logs_what_is_forbidden_serves_nobody(team: Team, said: list[str]) -> None:
    first = team.baseline()
    team.release_file(verify={"logs": {"expect": [], "forbid": ["shop is open"]}})
    message = ends(team.release(), said, "Failed")
    assert re.search(r"log: nothing forbidden: shop is open in line", message)
    untouched(team, first)


def test_a_revision_that_never_listens_serves_nobody(
    team: Team, new_cloud: Callable[..., Any], said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    impatient = new_cloud("--startup-seconds", "2")
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", impatient.host)
    team = Team(tmp_path / "deaf" / "shop", Clients(impatient.host), team.image, team.base_image, team.home, team.api)
    team.lay_out()
    first = team.baseline()
    team.change_env(FAULT_DEAF="1")
    message = ends(team.release(), said, "Failed")
    assert re.search(r"did not start: .*PORT.*\n  -> the process must listen on 0\.0\.0\.0:\$PORT", message)
    untouched(team, first)


# -- a full disk -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own that is almost full."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(place)], check=True, timeout=10)
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True, timeout=10)


def filled(disk: Path) -> None:
    """To the last byte."""
    with contextlib.suppress(OSError), (disk / "filler").open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_for_the_records_ends_a_release_before_anything_is_deployed(
    team: Team, said: list[str], small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    before = production(team)
    monkeypatch.setenv("RELAIS_HOME", str(small_disk))
    message = ends(team.release(), said)
    assert re.search(rf"{small_disk}.*: the record of this release cannot be kept: No space left on device\n  -> free some space", message)
    assert production(team) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_during_the_rollout_does_not_stop_it_and_is_told(
    team: Team, said: list[str], small_disk: Path, cloud: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    team.baseline()
    subprocess.run(["mount", "-o", "remount,size=2m", str(small_disk)], check=True, timeout=10)
    monkeypatch.setenv("RELAIS_HOME", str(small_disk))

    with between(cloud.host) as (way, address):
        monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", address)
        way.before("UpdateService", lambda: way.before("UpdateService", lambda: filled(small_disk)))  # at the second write: the first move
        state = team.release()
    assert state.name == "Promoted", state.message
    assert any("the record is not kept" in line and "No space left on device" in line for line in said)
    assert "Traceback" not in "\n".join(said)


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk takes root")
def test_a_full_disk_for_the_repository_is_refused(
    open_shop: Callable[..., Team], said: list[str], small_disk: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    subprocess.run(["mount", "-o", "remount,size=1m", str(small_disk)], check=True, timeout=10)
    team = open_shop(small_disk, monkeypatch)
    monkeypatch.setenv("RELAIS_HOME", str(tmp_path / "home"))
    team.home = tmp_path / "home"
    team.baseline()
    before = production(team)
    filled(small_disk)
    message = ends(team.release(), said, "Failed")
    assert "No space left on device" in message
    assert production(team) == before
