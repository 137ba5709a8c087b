"""Lays the sample out as its team's Git repository, and makes the commits that demonstrations and tests release.

    python examples/emergence/lay_out.py repo DIR       the repository DIR with its history, and its remote DIR.git
    python examples/emergence/lay_out.py baseline DIR   the revision of Phase 3 on the local cloud, with all the traffic
    python examples/emergence/lay_out.py next DIR       one more version, pushed
    python examples/emergence/lay_out.py break DIR      a change that only traffic shows to be bad, pushed
    python examples/emergence/lay_out.py mend DIR       its revert, pushed

Needs git; `baseline` also the project's environment, npm and a Docker Engine. Exit code: 0 done, 1 not done and why.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))  # trouble.py and phase3b.py stand beside this file

from trouble import Trouble  # noqa: E402

FG = "FG <fg@example.org>"
CLAUDE = "Claude Code <claude-code@example.org>"
CODEX = "Codex <codex@example.org>"

Files = Mapping[str, bytes]


@dataclass(frozen=True)
class Commit:
    """One commit of the history: the files of a phase whose paths begin with one of `paths`."""

    subject: str
    date: str
    author: str
    phase: str
    paths: tuple[str, ...]


CODE = ("VERSION", "src/backend", "tests")
TOOLS = (".", "Dockerfile", "env.yaml", "package.json", "pyproject.toml", "requirements.txt", "scripts", "src/frontend")
PHASE3 = Commit("feat(phase3): analyse mémoire avec cache + 3 métriques Prometheus", "2025-10-08T18:10:00+02:00", CLAUDE, "phase3", CODE)
P1 = Commit(
    "feat(P1): enrichissement mémoire - déportation async + extraction préférences + métriques",
    "2025-10-09T12:20:00+02:00",
    CLAUDE,
    "app",
    CODE,
)
SYNC = Commit(
    "docs: sync Phase P1 enrichissement mémoire (AGENT_SYNC + roadmap)",
    "2025-10-09T12:30:00+02:00",
    CLAUDE,
    "app",
    ("AGENT_SYNC.md", "README.md", "docs"),
)
HISTORY = (
    Commit("chore: socle - image, front end, outillage", "2025-10-07T11:30:00+02:00", CODEX, "phase3", TOOLS),
    Commit("docs: protocole, feuille de route, journal", "2025-10-07T11:45:00+02:00", FG, "phase3", ("AGENT", "CODEV", "docs")),
    PHASE3,
    P1,
    SYNC,
    Commit("chore: release.yaml, la release P1 en données", "2025-10-09T13:00:00+02:00", FG, "app", ("release.yaml",)),
)
WRITTEN_BY_P1 = ("preference_extractor.py", "task_queue.py", "test_preference_extractor.py", "test_task_queue.py")
NOT_IN_GIT = {"dist", "models", "node_modules", "build_tag.txt", "__pycache__", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".venv"}
RUNBOOKS_HASHES = {"588c5dc": P1, "4bde612": SYNC}  # in the sample's release.yaml; the repository's has its own
BASE_IMAGE = "relais-sample-base:1"  # in the sample's Dockerfile; RELAIS_BASE_IMAGE in the repository's

FAULTY = 'FAULT_ERROR_RATE: "0.5"\nFAULT_ERROR_PATH: /api/memory\n'


def read(root: Path) -> Files:
    """The files of a tree, without what a build or a test leaves behind."""
    paths = (path for path in sorted(root.rglob("*")) if path.is_file() and not NOT_IN_GIT.intersection(path.relative_to(root).parts))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def phases() -> Mapping[str, Files]:
    """The sample as it is, and as it was in Phase 3: without what P1 added, and with phase3/ laid over the rest."""
    app = read(HERE / "app")
    before = {path: content for path, content in app.items() if not path.endswith(WRITTEN_BY_P1)}
    return {"app": app, "phase3": {**before, **read(HERE / "phase3")}}


def git(directory: Path, *arguments: str, **environment: str) -> str:
    """The output of a git command that knows no configuration but the repository's own."""
    alone = {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "GIT_TERMINAL_PROMPT": "0", "LC_ALL": "C"}
    around = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    command = ["git", "-C", str(directory), *arguments]
    try:
        done = subprocess.run(command, env={**around, **alone, **environment}, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        raise Trouble("git is not installed", "Install git.") from None
    except subprocess.TimeoutExpired:
        raise Trouble(f"git {arguments[0]} did not end within 60 s in {directory}", "See what holds the repository or its disk.") from None
    if done.returncode:
        said = (done.stderr or done.stdout).strip()
        raise Trouble(f"git {' '.join(arguments[:2])} failed in {directory}: {said}", "See git status there.")
    return done.stdout.strip()


def commit(directory: Path, subject: str, author: str, date: str = "") -> str:
    """Commits what is staged; the hash."""
    name, _, address = author.removesuffix(">").partition(" <")
    who = {f"GIT_{role}_{part}": value for role in ("AUTHOR", "COMMITTER") for part, value in (("NAME", name), ("EMAIL", address))}
    when = {"GIT_AUTHOR_DATE": date, "GIT_COMMITTER_DATE": date} if date else {}
    git(directory, "commit", "--quiet", "--message", subject, **who, **when)
    return git(directory, "rev-parse", "HEAD")


def repo(directory: Path) -> str:
    """The repository and its remote; what is there already is left as it is."""
    remote = directory.with_name(directory.name + ".git")
    if (directory / ".git").exists():
        said = f"{directory} is there already and left as it is"
    elif directory.exists() and any(directory.iterdir()):
        raise Trouble(f"{directory} is not empty and not a Git repository", "Give another directory.")
    elif remote.exists():
        git(directory.parent, "clone", "--quiet", str(remote), str(directory))
        _identify(directory)
        said = f"{directory} is cloned again from {remote}"
    else:
        directory.parent.mkdir(parents=True, exist_ok=True)
        unfinished = directory.with_name(f".{directory.name}.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _write_history(unfinished)
        if directory.exists():
            directory.rmdir()
        unfinished.rename(directory)
        said = f"{directory} is laid out, {len(HISTORY)} commits on main"
    if not remote.exists():
        git(directory.parent, "init", "--quiet", "--bare", "--object-format=sha1", "--initial-branch=main", str(remote))
    if "origin" not in git(directory, "remote").split():
        git(directory, "remote", "add", "origin", str(remote))
        git(directory, "push", "--quiet", "--set-upstream", "origin", "main")
    return said


def _write_history(directory: Path) -> None:
    directory.mkdir()
    git(directory, "init", "--quiet", "--object-format=sha1", "--initial-branch=main")
    _identify(directory)
    hashes: dict[Commit, str] = {}
    trees = phases()
    for one in HISTORY:
        for path, content in trees[one.phase].items():
            if path.startswith(one.paths):
                target = directory / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(_own(path, content, hashes))
                target.chmod(0o644)
        git(directory, "add", "--all")
        hashes[one] = commit(directory, one.subject, one.author, one.date)


def _identify(directory: Path) -> None:
    name, _, address = CODEX.removesuffix(">").partition(" <")
    git(directory, "config", "user.name", name)
    git(directory, "config", "user.email", address)


def _own(path: str, content: bytes, hashes: Mapping[Commit, str]) -> bytes:
    """What only a layout knows: its own hashes, and what the set-up named the base image."""
    replaced: dict[str, str] = {}
    if path == "release.yaml":
        replaced = {theirs: hashes[ours][:7] for theirs, ours in RUNBOOKS_HASHES.items()}
    elif path == "Dockerfile":
        replaced = {BASE_IMAGE: os.environ.get("RELAIS_BASE_IMAGE") or BASE_IMAGE}
    for before, after in replaced.items():
        content = content.replace(before.encode(), after.encode())
    return content


def bump(directory: Path) -> str:
    """One more version: what /api/version says."""
    _catch_up(directory)
    file = directory / "VERSION"
    *first, last = file.read_text(encoding="utf-8").strip().split(".")
    version = ".".join([*first, str(int(last) + 1)])
    file.write_text(version + "\n", encoding="utf-8")
    return _publish(directory, "VERSION", f"feat: version {version}")


def spoil(directory: Path) -> str:
    """Half of the memory routes' answers become errors; nothing that is asked once shows it."""
    _catch_up(directory)
    file = directory / "env.yaml"
    text = file.read_text(encoding="utf-8")
    if FAULTY in text:
        return "it is broken already: nothing to do"
    file.write_text(text + FAULTY, encoding="utf-8")
    return _publish(directory, "env.yaml", "perf(memory): réponses plus directes")


def mend(directory: Path) -> str:
    """The revert of what `break` did."""
    _catch_up(directory)
    file = directory / "env.yaml"
    text = file.read_text(encoding="utf-8")
    if FAULTY not in text:
        return "it is not broken: nothing to do"
    file.write_text(text.replace(FAULTY, ""), encoding="utf-8")
    return _publish(directory, "env.yaml", 'Revert "perf(memory): réponses plus directes"')


def _catch_up(directory: Path) -> None:
    """On main, clean, with what others have pushed: a release commits its documents there."""
    if not (directory / ".git").exists():
        raise Trouble(f"{directory} is not a Git repository", "Lay it out first: lay_out.py repo DIR")
    if (branch := git(directory, "rev-parse", "--abbrev-ref", "HEAD")) != "main":
        raise Trouble(f"{directory} is on {branch}, not on main", "git switch main")
    if changed := git(directory, "status", "--porcelain", "--untracked-files=no"):
        raise Trouble(f"{directory} has uncommitted changes: {' '.join(changed.split())}", "Commit them, or take them back.")
    git(directory, "fetch", "--quiet", "origin", "main")
    try:
        git(directory, "merge", "--quiet", "--no-edit", "origin/main")
    except Trouble as conflict:
        git(directory, "merge", "--abort")
        raise Trouble(f"main and origin/main do not merge in {directory}: {conflict.what}", "Merge them by hand.") from None


def _publish(directory: Path, path: str, subject: str) -> str:
    git(directory, "add", path)
    made = commit(directory, subject, FG)
    git(directory, "push", "--quiet", "origin", "main")
    return f"{made[:7]} {subject}"


def baseline(directory: Path) -> str:
    """The revision that serves before the first release."""
    from phase3b import serve

    history = (line.partition(" ") for line in git(directory, "log", "--format=%H %s", "main").splitlines())
    commits = {subject: made for made, _, subject in history}
    if PHASE3.subject not in commits:
        raise Trouble(f"{directory} has no commit {PHASE3.subject!r}", "Lay the sample out afresh: lay_out.py repo DIR")
    return serve(directory, commits[PHASE3.subject])


COMMANDS = {"repo": repo, "baseline": baseline, "next": bump, "break": spoil, "mend": mend}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("directory", type=Path, metavar="DIR")
    arguments = parser.parse_args()
    try:
        print(COMMANDS[arguments.command](arguments.directory.resolve()))
    except Trouble as trouble:
        print(f"lay_out.py {arguments.command}: {trouble.what}\n  -> {trouble.remedy}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
