"""The team's repository: opened where it is or cloned, fetched, and held against what the release file demands of Git."""

import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from relais.clients.build_context import context_files
from relais.clients.git import Repository
from relais.config import BUILD_TAG, Changes, home, load
from relais.errors import BadInput, RelaisError
from relais.model import App, Commit, Finding, Outcome, Source
from tasks.effects import effect, say


@effect("open the repository", retries=2)
def open_app(app: str, ref: str, changes: Changes, release: str) -> App:
    """The release file with this run's changes, and the directory it lies in; a Git URL is cloned at `ref`."""
    url = ""
    root = Path(app).expanduser()
    if _is_url(app):
        root = home() / "work" / release
        url = Repository.clone(app, ref, root).public_url
        say(f"cloned {url} at {ref}")
    elif root.is_file():
        root = root.parent
    elif not root.is_dir():
        raise BadInput("there is no such directory", where=app, remedy="give `app` a directory that holds a release.yaml, or a Git URL")
    if not (root / "release.yaml").is_file():
        raise BadInput("there is no such file", where=str(root / "release.yaml"), remedy="give `app` the directory that holds it")
    file = load(root / "release.yaml").with_changes(changes)
    return App(root=str(root.resolve()), url=url, ref=ref, release=file.model_dump(mode="json", by_alias=True))


def _is_url(app: str) -> bool:
    return "://" in app or app.startswith("git@") or (app.endswith(".git") and Path(app).is_dir())


@effect("sync Git", retries=2)
def sync(app: App) -> Source:
    """Fetch and prune all remotes; the commit to release, the last ten, and what is not as it must be."""
    repo, rules = Repository.open(Path(app.root)), app.file.preflight.git
    findings = [_fetched(repo)]
    commit = repo.resolve(app.ref)
    head, branch = repo.head(), repo.branch()
    if head.sha != commit.sha:
        raise BadInput(
            f"the directory is at {head}, not at {commit}", where=app.root,
            remedy=f"check out {app.ref} there, or give `app` the repository's URL, so that it is cloned at {app.ref}",
        )  # fmt: skip
    findings.append(_branch(repo, app, branch, commit))
    findings.append(_clean(repo, rules.clean))
    findings += _in_the_image(repo, app)
    findings += _pushed(repo, rules.branch, commit, rules.pushed)
    findings += [_contains(repo, wanted, commit) for wanted in rules.commits]
    log = tuple(repo.log(10))
    for entry in log:
        say(f"  {entry}")
    for finding in findings:
        say(str(finding))
    return Source(root=app.root, url=app.url, branch=branch or rules.branch, commit=commit, log=log, findings=tuple(findings))


def _finding(name: str, outcome: Outcome, detail: str, *, required: bool = True) -> Finding:
    return Finding(name=name, kind="git", outcome=outcome, detail=detail, required=required)


def _fetched(repo: Repository) -> Finding:
    try:
        repo.fetch()
    except RelaisError as problem:
        return _finding("git fetch", "not proven", str(problem.what))
    return _finding("git fetch", "passed", "all remotes fetched and pruned" if repo.remotes() else "there is no remote")


def _branch(repo: Repository, app: App, branch: str, commit: Commit) -> Finding:
    wanted = app.file.preflight.git.branch
    if branch == wanted:
        return _finding("branch", "passed", wanted)
    if any(
        repo.is_ancestor(commit.sha, name) for name in (wanted, *(f"{remote}/{wanted}" for remote in repo.remotes())) if repo.exists(name)
    ):
        return _finding("branch", "passed", f"{commit.short} is on {wanted}")
    where = f"on {branch or 'no branch'}, and {commit.short} is not on {wanted}"
    return _finding("branch", "failed", f"{where}: merge it, or set preflight.git.branch")


def _clean(repo: Repository, required: bool) -> Finding:
    dirty = [path for path in repo.dirty() if path != BUILD_TAG]  # a release writes it
    if not dirty:
        return _finding("clean tree", "passed", "no tracked file is changed")
    return _finding("clean tree", "failed", f"changed and not committed: {_some(dirty)} (commit or stash first)", required=required)


def _in_the_image(repo: Repository, app: App) -> list[Finding]:
    """What the builder gets and no commit holds: untracked files are red, ignored ones (a built front end) are counted."""
    build, root = app.file.build, Path(app.root)
    if build is None:
        return []
    try:
        names = context_files(root / build.context, str((root / build.dockerfile).absolute()))
    except RelaisError:  # the gates say what is wrong with Dockerfile and context
        return []
    files = {os.path.normpath(os.path.join(build.context, name)) for name in names}
    files = {name for name in files if not any(fnmatch(name, written) for written in app.file.written_by_releases)}
    findings = []
    if unknown := sorted(files & set(repo.untracked())):
        detail = f"would enter the image, and no commit has them: {_some(unknown)} (commit them, or name them in .dockerignore)"
        findings.append(_finding("untracked files", "failed", detail, required=app.file.preflight.git.clean))
    if ignored := sorted(repo.ignored_in(sorted(files))):
        findings.append(_finding("ignored files", "passed", f"{len(ignored)} that Git ignores enter the image: {_some(ignored)}"))
    return findings


def _some(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _pushed(repo: Repository, branch: str, commit: Commit, required: bool) -> list[Finding]:
    findings = []
    for remote in repo.remotes():
        name = f"{remote}/{branch}"
        if not repo.exists(name):
            continue
        ahead, behind = repo.ahead_behind(commit.sha, name)
        if ahead:
            detail = f"{ahead} commit{'s' * (ahead > 1)} not on {name}: git push {remote} {branch}"
            findings.append(_finding(f"pushed to {remote}", "failed", detail, required=required))
        elif behind:
            detail = f"{name} has {behind} newer commit{'s' * (behind > 1)}: pull first, or release it"
            findings.append(_finding(f"newest of {remote}", "failed", detail, required=required))
        else:
            findings.append(_finding(f"pushed to {remote}", "passed", f"{commit.short} is what {name} has"))
    return findings


def _contains(repo: Repository, wanted: str, commit: Commit) -> Finding:
    try:
        found = repo.resolve(wanted)
    except BadInput as unknown:
        return _finding(f"commit {wanted}", "failed", f"{unknown.what}: fetch it, or correct preflight.git.commits")
    if repo.is_ancestor(found.sha, commit.sha):
        return _finding(f"commit {wanted}", "passed", found.subject)
    return _finding(f"commit {wanted}", "failed", f"{found} is not part of {commit.short}")


@effect("commits since then")
def since(source: Source, previous: str) -> Source:
    """The commits between what serves and what is released, newest first; none where the one that serves is not known."""
    repo = Repository.open(Path(source.root))
    if not previous or not repo.exists(previous):
        return source
    served = repo.resolve(previous)
    return source.model_copy(update={"previous": served, "since": tuple(repo.log_between(served.sha, source.commit.sha))})
