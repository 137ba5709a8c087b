"""The sample as a repository: the same every time, with the history and the checks that its release expects."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from emergence import SAMPLE, git, lay_out


def test_two_layouts_have_the_same_hashes(laid_out: Path, tmp_path: Path) -> None:
    assert lay_out("repo", tmp_path / "again").returncode == 0
    assert git(tmp_path / "again", "log", "--format=%H %s") == git(laid_out, "log", "--format=%H %s")
    assert git(tmp_path / "again.git", "rev-parse", "main") == git(laid_out, "rev-parse", "HEAD")


def test_a_repository_that_is_there_is_left_as_it_is(tmp_path: Path) -> None:
    lay_out("repo", tmp_path / "app")
    (tmp_path / "app" / "VERSION").write_text("mine")
    done = lay_out("repo", tmp_path / "app")
    assert done.returncode == 0
    assert "left as it is" in done.stdout
    assert (tmp_path / "app" / "VERSION").read_text() == "mine"


def test_the_remote_alone_is_enough_to_lay_it_out_again(tmp_path: Path) -> None:
    lay_out("repo", tmp_path / "app")
    lay_out("next", tmp_path / "app")
    version = git(tmp_path / "app", "rev-parse", "HEAD")
    (tmp_path / "app").rename(tmp_path / "elsewhere")
    assert lay_out("repo", tmp_path / "app").returncode == 0
    assert git(tmp_path / "app", "rev-parse", "HEAD") == version


def test_a_directory_that_is_somebody_elses_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = lay_out("repo", tmp_path)
    assert done.returncode == 1
    assert "not empty and not a Git repository" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_release_file_names_commits_of_its_own_history(laid_out: Path) -> None:
    release = yaml.safe_load((laid_out / "release.yaml").read_text(encoding="utf-8"))
    subjects = {git(laid_out, "log", "-1", "--format=%s", commit) for commit in release["preflight"]["git"]["commits"]}
    assert {subject.split(":")[0] for subject in subjects} == {"feat(P1)", "docs"}
    assert git(laid_out, "log", "-1", "--format=%s", release["release"]["commit"]).startswith("feat(P1): enrichissement mémoire")
    assert git(laid_out, "status", "--porcelain") == ""


def checks() -> list[dict[str, object]]:
    release = yaml.safe_load((SAMPLE / "app" / "release.yaml").read_text(encoding="utf-8"))
    return list(release["preflight"]["checks"])


@pytest.mark.parametrize("check", checks(), ids=lambda check: str(check["name"]))
def test_a_check_of_the_release_passes_with_the_count_it_expects(laid_out: Path, check: dict[str, object]) -> None:
    done = run(str(check["run"]), laid_out)
    assert done.returncode == 0, done.stdout + done.stderr
    assert str(check.get("expect", "")) in done.stdout
    if "passed" in check:
        assert re.search(rf"\b{check['passed']} passed\b", done.stdout)
    assert git(laid_out, "status", "--porcelain") == ""


def test_phase_3_passes_its_own_tests_and_knows_no_preferences(laid_out: Path, tmp_path: Path) -> None:
    phase3 = git(laid_out, "log", "--format=%H", "--grep", "feat(phase3)", "--fixed-strings")
    git(laid_out, "worktree", "add", "--quiet", "--detach", str(tmp_path / "phase3"), phase3)
    try:
        done = run("python -m pytest", tmp_path / "phase3")
        assert "16 passed" in done.stdout, done.stdout
        assert not list((tmp_path / "phase3").rglob("*preference*"))
        assert "P1" not in (tmp_path / "phase3" / "AGENT_SYNC.md").read_text(encoding="utf-8").split("**Next**")[0]
    finally:
        git(laid_out, "worktree", "remove", "--force", str(tmp_path / "phase3"))


def test_next_break_and_mend_make_one_pushed_commit_each_and_no_second(tmp_path: Path) -> None:
    app = tmp_path / "app"
    lay_out("repo", app)
    history = int(git(app, "rev-list", "--count", "HEAD"))
    for command in ("next", "break", "break", "mend", "mend"):
        done = lay_out(command, app)
        assert done.returncode == 0, done.stderr
        assert "fault" not in git(app, "log", "-1", "--format=%B").casefold()
        assert git(app, "rev-parse", "HEAD") == git(tmp_path / "app.git", "rev-parse", "main")
    assert int(git(app, "rev-list", "--count", "HEAD")) == history + 3
    assert (app / "VERSION").read_text().strip() == "0.4.1"
    assert git(app, "diff", "--stat", "HEAD~2", "HEAD") == ""
    assert "FAULT_ERROR_PATH: /api/memory" in git(app, "show", "HEAD~1:env.yaml")


def test_next_takes_up_what_a_release_pushed_and_refuses_a_dirty_tree(tmp_path: Path) -> None:
    app = tmp_path / "app"
    lay_out("repo", app)
    git(tmp_path, "clone", "--quiet", str(tmp_path / "app.git"), str(tmp_path / "worker"))
    identity = ("-c", "user.name=W", "-c", "user.email=w@example.org")
    git(tmp_path / "worker", *identity, "commit", "--quiet", "--allow-empty", "-m", "docs: release")
    git(tmp_path / "worker", "push", "--quiet")
    assert lay_out("next", app).returncode == 0
    assert git(app, "log", "-2", "--format=%s") == "feat: version 0.4.1\ndocs: release"
    (app / "VERSION").write_text("9")
    refused = lay_out("next", app)
    assert refused.returncode == 1
    assert "uncommitted changes" in refused.stderr


def test_without_a_local_cloud_the_baseline_says_what_is_missing(laid_out: Path) -> None:
    unset = lay_out("baseline", laid_out, CLOUDRUN_EMULATOR_HOST="")
    assert (unset.returncode, "CLOUDRUN_EMULATOR_HOST is not set" in unset.stderr) == (1, True)


def run(command: str, directory: Path) -> "subprocess.CompletedProcess[str]":
    """A command of the release file, with this environment's python first in the path."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(
        command.split(), cwd=directory, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=120, check=False
    )
