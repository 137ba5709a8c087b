"""The team's repository, seen and written by the client, with real repositories and remotes."""

import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from relais.clients.git import Repository, redacted
from relais.errors import BadInput, Denied, Missing, StepFailed, Unavailable


@pytest.fixture(autouse=True)
def nobody(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine where nobody has configured Git."""
    monkeypatch.setenv("HOME", str(tmp_path / "nobody"))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)


def git(path: Path, *arguments: str) -> str:
    who = ["-c", "user.name=Ana Petit", "-c", "user.email=ana@example.com"]
    done = subprocess.run(["git", *who, *arguments], cwd=path, capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def committed(path: Path, name: str, text: str, message: str) -> str:
    write(path / name, text)
    git(path, "add", name)
    git(path, "commit", "-q", "-m", message)
    return git(path, "rev-parse", "HEAD")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """A bare repository with two commits on main and one more on a branch."""
    work, bare = tmp_path / "seed", tmp_path / "remote.git"
    work.mkdir()
    git(work, "init", "-q", "-b", "main")
    committed(work, "app.py", "one\n", "First version")
    committed(work, "app.py", "two\n", "Second version — été")
    git(work, "tag", "v2")
    git(work, "checkout", "-q", "-b", "feature/memory")
    committed(work, "memory.py", "m\n", "Memory")
    git(work, "checkout", "-q", "main")
    git(tmp_path, "clone", "-q", "--bare", str(work), str(bare))
    return bare


@pytest.fixture
def tree(tmp_path: Path, remote: Path) -> Path:
    """The team's clone of it."""
    git(tmp_path, "clone", "-q", str(remote), str(tmp_path / "tree"))
    return tmp_path / "tree"


@pytest.fixture
def repo(tree: Path) -> Repository:
    return Repository.open(tree)


# -- open ------------------------------------------------------------------------------------------------------------


def test_a_directory_inside_a_repository_opens_the_repository(tree: Path) -> None:
    (tree / "docs").mkdir()
    assert Repository.open(tree / "docs").path == tree


def test_what_is_no_repository_is_refused_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"not a Git repository\n  -> .*git init"):
        Repository.open(tmp_path)
    with pytest.raises(BadInput, match="no such directory"):
        Repository.open(tmp_path / "gone")


def test_a_repository_without_a_commit_says_so(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    repo = Repository.open(tmp_path)
    with pytest.raises(BadInput, match="no commit yet"):
        repo.head()
    assert repo.log(5) == ()


@pytest.mark.parametrize(
    ("ref", "subject", "branch"),
    [
        ("main", "Second version — été", "main"),
        ("feature/memory", "Memory", "feature/memory"),
        ("v2", "Second version — été", ""),
        ("HEAD", "Second version — été", "main"),
    ],
)
def test_a_clone_is_at_the_ref_and_on_the_branch_where_the_ref_is_one(
    tmp_path: Path, remote: Path, ref: str, subject: str, branch: str
) -> None:
    repo = Repository.clone(str(remote), ref, tmp_path / "work" / "1")
    assert (repo.head().subject, repo.branch(), repo.public_url) == (subject, branch, str(remote))


def test_a_clone_at_a_hash_has_the_whole_history(tmp_path: Path, remote: Path, repo: Repository) -> None:
    first = repo.log(2)[1]
    clone = Repository.clone(str(remote), first.short, tmp_path / "work")
    assert (clone.head(), clone.dirty()) == (first, ())
    assert len(clone.log(10, "origin/main")) == 2


def test_a_clone_that_is_there_already_is_brought_up_to_date(tmp_path: Path, remote: Path, tree: Path) -> None:
    Repository.clone(str(remote), "main", tmp_path / "work")
    new = committed(tree, "app.py", "three\n", "Third version")
    git(tree, "push", "-q", "origin", "main")
    assert Repository.clone(str(remote), "main", tmp_path / "work").head().sha == new


def test_a_clone_never_overwrites_something_else(tmp_path: Path, remote: Path) -> None:
    write(tmp_path / "work" / "notes.txt", "mine")
    with pytest.raises(BadInput, match="something else than a clone"):
        Repository.clone(str(remote), "main", tmp_path / "work")
    assert (tmp_path / "work" / "notes.txt").read_text() == "mine"


def test_a_clone_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(Missing, match=r"does not (exist|appear to be a git repository)"):
        Repository.clone(str(tmp_path / "gone.git"), "main", tmp_path / "work" / "1")
    assert list((tmp_path / "work").iterdir()) == []


def test_a_url_with_a_credential_is_refused_without_showing_it(tmp_path: Path) -> None:
    for url in ("https://ana:s3cret@example.com/app.git", "https://ghp_0123456789abcdef0123456789@example.com/app.git"):
        with pytest.raises(BadInput, match="holds a credential") as refused:
            Repository.clone(url, "main", tmp_path / "work")
        assert "s3cret" not in str(refused.value)
        assert "ghp_" not in str(refused.value)
        assert "https://***@example.com/app.git" in str(refused.value)


# -- read ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ref", ["HEAD", "main", "origin/main", "v2", "HEAD~0"])
def test_a_commit_is_found_by_any_of_its_names(repo: Repository, ref: str) -> None:
    found = repo.resolve(ref)
    assert (found.subject, found.author) == ("Second version — été", "Ana Petit")
    assert (found, repo.resolve(found.sha), repo.resolve(found.short)) == (repo.head(),) * 3
    assert len(found.sha) == 40
    assert "T" in found.date


def test_a_branch_that_only_the_remote_has_is_found_by_its_name(repo: Repository) -> None:
    assert repo.resolve("feature/memory").subject == "Memory"


@pytest.mark.parametrize("ref", ["feature/memorie", "4bde612", "--all", "main..HEAD", "", "v2:app.py"])
def test_an_unknown_commit_is_refused_with_what_may_have_been_meant(repo: Repository, ref: str) -> None:
    assert not repo.exists(ref)
    with pytest.raises(BadInput, match="there is no commit") as refused:
        repo.resolve(ref)
    assert "Second version" in refused.value.remedy
    assert ("did you mean origin/feature/memory" in refused.value.remedy) is (ref == "feature/memorie")


def test_the_history_is_told_newest_first(repo: Repository, tree: Path) -> None:
    third = committed(tree, "app.py", "three\n", "Third version")
    assert [c.subject for c in repo.log(2)] == ["Third version", "Second version — été"]
    assert [c.sha for c in repo.log_between("v2", "HEAD")] == [third]
    assert (repo.is_ancestor("v2", "HEAD"), repo.is_ancestor("HEAD", "v2")) == (True, False)
    assert repo.ahead_behind("main", "origin/main") == (1, 0)
    assert repo.ahead_behind("main", "origin/feature/memory") == (1, 1)


def test_a_subject_may_hold_anything(repo: Repository, tree: Path) -> None:
    subject = 'A "quoted" | piped % percent %H\ttab'
    committed(tree, "x", "x", subject)
    assert repo.head().subject == subject


def test_only_tracked_changes_make_a_tree_dirty(repo: Repository, tree: Path) -> None:
    assert repo.dirty() == ()
    write(tree / "new.txt", "untracked")
    assert repo.dirty() == ()
    write(tree / "app.py", "changed\n")
    assert repo.dirty() == ("app.py",)
    git(tree, "checkout", "-q", "app.py")
    git(tree, "mv", "app.py", "é t é.py")
    write(tree / "new.txt", "staged")
    git(tree, "add", "new.txt")
    assert repo.dirty() == ("new.txt", "é t é.py")


def test_ignored_files_are_told_from_tracked_ones(repo: Repository, tree: Path) -> None:
    committed(tree, ".gitignore", "dist/\n*.log\n", "Ignore")
    write(tree / "dist" / "app.js", "x")
    write(tree / "tracked.log", "x")
    git(tree, "add", "-f", "tracked.log")
    assert repo.ignored_in(["app.py", "dist/app.js", "tracked.log", "new.txt"]) == ("dist/app.js",)
    assert repo.ignored_in([]) == ()


def test_a_file_is_shown_as_a_commit_has_it(repo: Repository) -> None:
    assert repo.show("HEAD~1", "app.py") == b"one\n"
    with pytest.raises(Missing, match=r"HEAD has no file gone\.txt"):
        repo.show("HEAD", "gone.txt")


def test_a_detached_head_is_on_no_branch(repo: Repository, tree: Path) -> None:
    assert repo.branch() == "main"
    git(tree, "checkout", "-q", "--detach")
    assert repo.branch() == ""


def test_the_environment_of_a_hook_does_not_lead_elsewhere(repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "elsewhere"))
    assert repo.head().subject == "Second version — été"
    assert repo.dirty() == ()


# -- the outside -----------------------------------------------------------------------------------------------------


def test_fetching_learns_what_is_new_and_forgets_what_is_gone(repo: Repository, remote: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(remote), str(other))
    new = committed(other, "app.py", "three\n", "Theirs")
    git(other, "push", "-q", "origin", "main", ":feature/memory")
    repo.fetch()
    assert repo.resolve("origin/main").sha == new
    assert not repo.exists("origin/feature/memory")
    assert repo.ahead_behind("main", "origin/main") == (0, 1)


def test_fetching_where_there_is_no_remote_is_nothing(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    Repository.open(tmp_path).fetch()


@pytest.fixture
def silent() -> Iterator[int]:
    """A server that accepts and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        kept: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    kept.append(listening.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
    for connection in kept:
        connection.close()


def test_a_remote_that_never_answers_is_an_outage_after_the_limit(repo: Repository, tree: Path, silent: int) -> None:
    git(tree, "remote", "set-url", "origin", f"http://127.0.0.1:{silent}/app.git")
    begun = time.monotonic()
    with pytest.raises(Unavailable, match="not finished after 1 s"):
        repo.fetch(timeout=1)
    assert time.monotonic() - begun < 5


def test_a_remote_that_is_down_is_an_outage_and_its_credentials_stay_hidden(repo: Repository, tree: Path) -> None:
    git(tree, "remote", "set-url", "origin", "http://ana:s3cret@127.0.0.1:9/app.git")
    with pytest.raises(Unavailable) as down:
        repo.fetch()
    assert "s3cret" not in str(down.value)
    assert repo.url("origin") == "http://***@127.0.0.1:9/app.git"


def test_a_remote_that_is_gone_is_missing(repo: Repository, tree: Path, tmp_path: Path) -> None:
    git(tree, "remote", "set-url", "origin", str(tmp_path / "gone.git"))
    with pytest.raises(Missing):
        repo.fetch()


# -- write -----------------------------------------------------------------------------------------------------------


def test_a_commit_holds_exactly_its_paths_and_leaves_the_rest_as_it_was(repo: Repository, tree: Path) -> None:
    write(tree / "app.py", "unstaged\n")
    write(tree / "staged.txt", "staged\n")
    git(tree, "add", "staged.txt")
    write(tree / "docs" / "report.md", "report\n")
    made = repo.commit(["docs/report.md"], "Release p1\n\nWith a body", author="Codex (cloud)")
    assert (made, made.subject, made.author) == (repo.head(), "Release p1", "Codex (cloud)")
    assert git(tree, "show", "--name-only", "--format=", "HEAD") == "docs/report.md"
    assert git(tree, "log", "-1", "--format=%ae %cn") == "relais@localhost Relais"
    assert git(tree, "status", "--porcelain") == "M app.py\nA  staged.txt"


def test_the_same_files_again_make_no_second_commit(repo: Repository, tree: Path) -> None:
    write(tree / "report.md", "report\n")
    made = repo.commit(["report.md"], "Release")
    assert repo.commit(["report.md"], "Release") == made


def test_a_file_that_is_ignored_is_not_committed(repo: Repository, tree: Path) -> None:
    committed(tree, ".gitignore", "build_tag.txt\n", "Ignore")
    write(tree / "build_tag.txt", "t")
    write(tree / "report.md", "report\n")
    repo.commit(["report.md", "build_tag.txt"], "Release")
    assert git(tree, "show", "--name-only", "--format=", "HEAD") == "report.md"


@pytest.mark.parametrize("branch", ["", "docs"])
def test_where_every_file_is_ignored_nothing_is_committed(repo: Repository, tree: Path, branch: str) -> None:
    head = committed(tree, ".gitignore", "build_tag.txt\n", "Ignore")
    git(tree, "branch", "docs")
    write(tree / "build_tag.txt", "t")
    write(tree / "app.py", "somebody is at work here\n")
    git(tree, "add", "app.py")
    assert repo.commit(["build_tag.txt"], "Release", branch=branch).sha == head
    assert (git(tree, "rev-parse", "HEAD"), git(tree, "diff", "--cached", "--name-only")) == (head, "app.py")


def test_the_configured_person_commits_and_the_author_may_bring_a_mail(repo: Repository, tree: Path) -> None:
    git(tree, "config", "user.name", "Ana Petit")
    git(tree, "config", "user.email", "ana@example.com")
    write(tree / "report.md", "1")
    repo.commit(["report.md"], "One")
    write(tree / "report.md", "2")
    repo.commit(["report.md"], "Two", author="Bob <bob@example.com>")
    authors = git(tree, "log", "-2", "--format=%an <%ae> %cn").splitlines()
    assert authors == ["Bob <bob@example.com> Ana Petit", "Ana Petit <ana@example.com> Ana Petit"]


def test_a_hook_runs_and_its_refusal_is_told_and_leaves_the_index_as_it_was(repo: Repository, tree: Path) -> None:
    hook = tree / ".git" / "hooks" / "pre-commit"
    write(hook, "#!/bin/sh\necho 'no release on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    write(tree / "report.md", "report\n")
    with pytest.raises(StepFailed, match="no release on Fridays"):
        repo.commit(["report.md"], "Release")
    assert git(tree, "status", "--porcelain") == "?? report.md"


def test_a_hook_that_never_ends_is_ended_and_is_no_outage(repo: Repository, tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hook = tree / ".git" / "hooks" / "pre-commit"
    write(hook, "#!/bin/sh\nsleep 300\n")
    hook.chmod(0o755)
    write(tree / "report.md", "report\n")
    monkeypatch.setattr("relais.clients.git.HOOKS", 1.0)
    with pytest.raises(StepFailed, match="git commit was not finished after 1 s"):
        repo.commit(["report.md"], "Release")
    assert git(tree, "status", "--porcelain") == "?? report.md"
    hook.unlink()
    assert repo.commit(["report.md"], "Release").subject == "Release"


def test_a_commit_on_a_branch_that_is_not_checked_out_touches_neither_tree_nor_index(repo: Repository, tree: Path) -> None:
    git(tree, "checkout", "-q", "--detach", "HEAD~1")
    write(tree / "docs" / "report.md", "report\n")
    write(tree / "app.py", "unstaged\n")
    made = repo.commit(["docs/report.md"], "Release", author="Codex (cloud)", branch="main")
    assert (made, made.author) == (repo.resolve("main"), "Codex (cloud)")
    assert [c.subject for c in repo.log(2, "main")] == ["Release", "Second version — été"]
    assert (repo.show("main", "app.py"), repo.show("main", "docs/report.md")) == (b"two\n", b"report\n")
    assert (repo.branch(), repo.head().subject) == ("", "First version")
    assert git(tree, "status", "--porcelain") == "M app.py\n?? docs/"
    assert repo.commit(["docs/report.md"], "Release", branch="main") == made


def test_a_commit_that_does_not_fit_onto_its_branch_is_refused_with_the_file(repo: Repository, tree: Path) -> None:
    git(tree, "checkout", "-q", "--detach", "HEAD~1")
    write(tree / "app.py", "another two\n")
    with pytest.raises(StepFailed, match=r"does not go on top .*app\.py"):
        repo.commit(["app.py"], "Release", branch="main")
    assert repo.resolve("main").subject == "Second version — été"


def test_on_no_branch_a_commit_needs_the_name_of_one(repo: Repository, tree: Path) -> None:
    git(tree, "checkout", "-q", "--detach")
    with pytest.raises(BadInput, match="on no branch"):
        repo.commit(["app.py"], "Release")


def test_a_push_gives_the_branch_to_its_remote(repo: Repository, tree: Path, remote: Path) -> None:
    new = committed(tree, "app.py", "three\n", "Third version")
    repo.push("main")
    assert git(remote, "rev-parse", "main") == new
    assert repo.ahead_behind("main", "origin/main") == (0, 0)


def test_somebody_who_was_faster_stays_and_ours_goes_on_top(repo: Repository, tree: Path, remote: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(remote), str(other))
    committed(other, "theirs.txt", "x", "Theirs")
    git(other, "push", "-q", "origin", "main")
    write(tree / "report.md", "report\n")
    repo.commit(["report.md"], "Ours")
    repo.push("main")
    assert git(remote, "log", "--format=%s", "main").splitlines()[:2] == ["Ours", "Theirs"]
    assert (tree / "theirs.txt").exists()


def test_a_detached_clone_pushes_its_documents_on_top_too(remote: Path, tmp_path: Path) -> None:
    repo, other = Repository.clone(str(remote), "v2", tmp_path / "work"), tmp_path / "other"
    git(tmp_path, "clone", "-q", str(remote), str(other))
    committed(other, "theirs.txt", "x", "Theirs")
    git(other, "push", "-q", "origin", "main")
    write(repo.path / "report.md", "report\n")
    repo.commit(["report.md"], "Ours", author="Codex (cloud) <codex@example.com>", branch="main")
    repo.push("main")
    assert git(remote, "log", "--format=%s %an", "main").splitlines()[:2] == ["Ours Codex (cloud)", "Theirs Ana Petit"]
    assert repo.branch() == ""


def test_a_push_that_would_need_a_merge_by_hand_changes_nothing(repo: Repository, tree: Path, remote: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    git(tmp_path, "clone", "-q", str(remote), str(other))
    theirs = committed(other, "report.md", "theirs\n", "Theirs")
    git(other, "push", "-q", "origin", "main")
    write(tree / "report.md", "ours\n")
    ours = repo.commit(["report.md"], "Ours")
    with pytest.raises(StepFailed, match="somebody pushed to main meanwhile") as refused:
        repo.push("main")
    assert "git pull --rebase" in refused.value.remedy
    assert (repo.head(), git(remote, "rev-parse", "main")) == (ours, theirs)
    assert (repo.branch(), repo.dirty()) == ("main", ())


def test_a_remote_that_declines_by_rule_is_final(repo: Repository, tree: Path, remote: Path) -> None:
    hook = remote / "hooks" / "pre-receive"
    write(hook, "#!/bin/sh\necho 'main is protected' >&2\nexit 1\n")
    hook.chmod(0o755)
    committed(tree, "app.py", "three\n", "Third version")
    with pytest.raises(Denied, match="main is protected"):
        repo.push("main")


def test_where_it_is_not_clear_where_to_push_it_is_asked(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q", "-b", "main")
    committed(tmp_path, "a", "a", "A")
    with pytest.raises(BadInput, match="not clear where main is pushed"):
        Repository.open(tmp_path).push("main")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("fatal: unable to access 'https://ana:p@ss@example.com/x/'", "fatal: unable to access 'https://***@example.com/x/'"),
        ("https://example.com/a@b", "https://example.com/a@b"),
        ("git@example.com:team/app.git", "git@example.com:team/app.git"),
    ],
)
def test_credentials_in_addresses_are_not_shown(text: str, shown: str) -> None:
    assert redacted(text) == shown
