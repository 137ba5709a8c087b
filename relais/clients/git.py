"""The team's Git repository, by the git command: every call bounded, no prompt, no credential in an error."""

import contextlib
import difflib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, Self

from relais.errors import BadInput, Denied, Missing, RelaisError, StepFailed, Unavailable
from relais.model import Commit

LOCAL: Final = 60.0  # seconds for what needs no network; a commit runs the team's hooks and gets HOOKS
NETWORK: Final = 180.0
HOOKS: Final = 300.0
CLONE: Final = 900.0

_ENV: Final = (
    "/usr/bin/env", "-u", "GIT_DIR", "-u", "GIT_WORK_TREE", "-u", "GIT_INDEX_FILE", "-u", "GIT_PREFIX", "LC_ALL=C", "GIT_TERMINAL_PROMPT=0",
    "GIT_OPTIONAL_LOCKS=0", "GIT_EDITOR=true",
)  # fmt: skip
_SETTINGS: Final = ("-c", "core.quotePath=off", "-c", "color.ui=false", "-c", "core.fsmonitor=false", "-c", "protocol.ext.allow=never")
_NAME: Final = 20  # characters: a longer user name in a URL is a token
_FORMAT: Final = "--format=%H%x1f%s%x1f%an%x1f%aI%x1e"
_USERINFO: Final = re.compile(r"(\w[\w+.-]*://)[^/\s]+@")
_OUTAGE: Final = re.compile(
    r"could not resolve host|connection (?:refused|reset|timed out|closed)|operation timed out|network is unreachable|no route to host"
    r"|early eof|unexpected disconnect|hung up unexpectedly|returned error: (?:429|5\d\d)|gnutls_handshake|ssl_error|failed to connect"
    r"|unable to connect|index\.lock|cannot lock ref",
    re.IGNORECASE,
)
_FORBIDDEN: Final = re.compile(
    r"authentication failed|permission denied|could not read (?:username|password)|returned error: 40[13]|access denied|not authorized"
    r"|host key verification failed|dubious ownership|write access .* not granted|protected branch|pre-receive hook declined",
    re.IGNORECASE,
)
_ABSENT: Final = re.compile(
    r"repository .*not found|does not appear to be a git repository|returned error: 404|does not exist", re.IGNORECASE
)
_REJECTED: Final = re.compile(r"\[rejected\]|non-fast-forward|fetch first|stale info", re.IGNORECASE)


class Repository:
    """A working tree and its repository."""

    def __init__(self, path: Path, public_url: str = "") -> None:
        self.path, self.public_url = path, public_url

    # -- open ------------------------------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: Path) -> Self:
        """The repository that this directory belongs to."""
        if not path.is_dir():
            raise BadInput("there is no such directory", where=str(path), remedy="give a directory inside a Git repository")
        code, out, err = _call(["rev-parse", "--show-toplevel"], path, LOCAL)
        if code != 0 and "dubious ownership" in err:
            raise Denied(
                "the directory belongs to another user, and Git refuses it", where=str(path),
                remedy=f"git config --global --add safe.directory {path}",
            )  # fmt: skip
        if code != 0:
            remedy = "a release is made from a commit: `git init`, or give a Git URL"
            raise BadInput("this is not a Git repository", where=str(path), remedy=remedy)
        return cls(Path(out.decode(errors="replace").rstrip("\n")))

    @classmethod
    def clone(cls, url: str, ref: str, into: Path, timeout: float = CLONE) -> Self:
        """A full clone at `ref`, on the branch where `ref` names one; a clone that is there already is fetched instead."""
        public = _public(url)
        if into.exists():
            repo = cls._again(url, public, into)
        else:
            into.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(prefix=f".{into.name}.", dir=into.parent))
            try:
                _answer(["clone", "--quiet", "--", url, str(partial)], into.parent, timeout, f"git clone {public}")
                partial.rename(into)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
            repo = cls(into, public)
        repo._check_out(ref)
        return repo

    @classmethod
    def _again(cls, url: str, public: str, into: Path) -> Self:
        code, out, _ = _call(["-C", str(into), "config", "--local", "remote.origin.url"], into, LOCAL)
        if code != 0 or out.decode(errors="replace").strip() != url:
            raise BadInput(f"there is something else than a clone of {public}", where=str(into), remedy="move it away")
        repo = cls(into, public)
        repo.fetch()
        return repo

    def _check_out(self, ref: str) -> None:
        theirs = f"refs/remotes/origin/{ref}"
        if ref == "HEAD":
            return
        if not self.exists(theirs):
            self._git("checkout", "--quiet", "--detach", self.resolve(ref).sha)
        elif self.branch() != ref:
            self._git("checkout", "--quiet", "-B", ref, theirs)
        elif not self.is_ancestor(theirs, "HEAD"):
            self._git("merge", "--quiet", "--ff-only", theirs)

    # -- read ------------------------------------------------------------------------------------------------------------

    def head(self) -> Commit:
        """What is checked out."""
        if not self.exists("HEAD"):
            raise BadInput("the repository has no commit yet", where=str(self.path), remedy="commit what is to be released")
        return self.resolve("HEAD")

    def branch(self) -> str:
        """The branch that is checked out; empty where HEAD is detached."""
        code, out, _ = self._try("symbolic-ref", "--quiet", "--short", "HEAD")
        return out.strip() if code == 0 else ""

    def exists(self, ref: str) -> bool:
        """Whether this names a commit here."""
        return self._sha(ref) is not None

    def resolve(self, ref: str) -> Commit:
        """The commit that a hash, a branch, a tag or a remote's branch names."""
        sha = self._sha(ref) or next(filter(None, (self._sha(f"refs/remotes/{remote}/{ref}") for remote in self.remotes())), None)
        if sha is None:
            raise BadInput(f"there is no commit {ref!r}", where=str(self.path), remedy=self._nearest(ref))
        return self._commits("-1", sha)[0]

    def _sha(self, ref: str) -> str | None:
        code, out, _ = self._try("rev-parse", "--verify", "--quiet", "--end-of-options", f"{ref}^{{commit}}")
        return out.strip() if code == 0 else None

    def _nearest(self, ref: str) -> str:
        """Names like it, and the newest commits: whoever mistyped finds what was meant."""
        names = self._git("for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/remotes", "refs/tags").split()
        like = difflib.get_close_matches(ref, names, 3, 0.5)
        newest = [f"  {commit}" for commit in self._commits("-5", "--all")]
        meant = f"did you mean {' or '.join(like)}? " if like else ""
        advice = "fetch it, or name one of the newest commits:" if newest else "there is no commit at all"
        return "\n".join([meant + advice, *newest])

    def _commits(self, *arguments: str) -> tuple[Commit, ...]:
        records = self._git("log", _FORMAT, *arguments, "--").split("\x1e")
        fields = [record.strip("\n").split("\x1f") for record in records if record.strip("\n")]
        return tuple(Commit(sha=sha, subject=subject, author=author, date=date) for sha, subject, author, date in fields)

    def log(self, number: int = 10, ref: str = "HEAD") -> tuple[Commit, ...]:
        """The last commits, newest first."""
        return self._commits(f"-{number}", self.resolve(ref).sha) if self.exists(ref) else ()

    def log_between(self, old: str, new: str, limit: int = 200) -> tuple[Commit, ...]:
        """The commits that `new` has and `old` has not, newest first."""
        return self._commits(f"-{limit}", f"{self.resolve(old).sha}..{self.resolve(new).sha}")

    def is_ancestor(self, old: str, new: str) -> bool:
        """Whether `new` contains `old`."""
        code, _, err = self._try("merge-base", "--is-ancestor", self.resolve(old).sha, self.resolve(new).sha)
        if code not in (0, 1):
            raise _ours(err, "git merge-base", str(self.path))
        return code == 0

    def ahead_behind(self, branch: str, remote_branch: str) -> tuple[int, int]:
        """How many commits the first has alone, and how many the second."""
        counts = self._git("rev-list", "--left-right", "--count", f"{self.resolve(branch).sha}...{self.resolve(remote_branch).sha}")
        ahead, behind = counts.split()
        return int(ahead), int(behind)

    def dirty(self) -> tuple[str, ...]:
        """Tracked files that are not as HEAD has them, staged or not."""
        entries = iter(self._git("status", "--porcelain=v1", "-z", "--untracked-files=no").split("\0"))
        paths = []
        for entry in filter(None, entries):
            paths.append(entry[3:])
            if set(entry[:2]) & set("RC"):
                next(entries, None)  # the name it had before
        return tuple(sorted(paths))

    def untracked(self) -> tuple[str, ...]:
        """Files that Git neither tracks nor ignores."""
        return _paths(self._git("ls-files", "--others", "--exclude-standard", "-z"))

    def ignored_in(self, paths: Iterable[str]) -> tuple[str, ...]:
        """Those of these files that Git ignores: they enter an image without being in any commit."""
        wanted = "\0".join(paths)
        if not wanted:
            return ()
        code, out, err = self._try("check-ignore", "-z", "--stdin", given=wanted.encode(errors="surrogateescape"))
        if code not in (0, 1):
            raise _ours(err, "git check-ignore", str(self.path))
        return _paths(out)

    def show(self, ref: str, path: str) -> bytes:
        """A file as a commit has it, byte for byte."""
        code, out, _ = _call(["show", f"{self.resolve(ref).sha}:{path}"], self.path, LOCAL)
        if code != 0:
            raise Missing(f"{ref} has no file {path}", where=str(self.path))
        return out

    def remotes(self) -> tuple[str, ...]:
        """The names of the remotes."""
        return tuple(self._git("remote").split())

    def url(self, remote: str) -> str:
        """A remote's address, without credentials."""
        return redacted(self._git("remote", "get-url", remote).strip())

    # -- the outside -----------------------------------------------------------------------------------------------------

    def fetch(self, timeout: float = NETWORK) -> None:
        """All remotes, pruned: what was deleted there is forgotten here."""
        self._git("fetch", "--all", "--prune", "--quiet", timeout=timeout)

    def push(self, branch: str, remote: str = "", timeout: float = NETWORK) -> None:
        """Give a branch to its remote; where somebody was faster, put ours on top of theirs and try once more."""
        remote = remote or self._remote_of(branch)
        command = ("push", "--quiet", "--porcelain", remote, f"refs/heads/{branch}:refs/heads/{branch}")
        code, out, err = self._try(*command, timeout=timeout)
        if code != 0 and _REJECTED.search(out + err):
            self.fetch(timeout)
            self._onto(branch, f"refs/remotes/{remote}/{branch}")
            code, out, err = self._try(*command, timeout=timeout)
        if code == 0:
            return
        if _REJECTED.search(out + err):
            remedy = f"git pull --rebase {remote} {branch}, then push again"
            raise StepFailed(f"{remote} has newer commits on {branch}", where=f"git push {remote} {branch}", remedy=remedy)
        raise _ours(f"{out}\n{err}", f"git push {remote} {branch}", self.url(remote))

    def _remote_of(self, branch: str) -> str:
        code, out, _ = self._try("config", f"branch.{branch}.remote")
        remotes = self.remotes()
        if code == 0 and out.strip() in remotes:
            return out.strip()
        if "origin" in remotes or len(remotes) == 1:
            return "origin" if "origin" in remotes else remotes[0]
        raise BadInput(
            f"it is not clear where {branch} is pushed to ({len(remotes)} remotes)", where=str(self.path),
            remedy=f"git branch --set-upstream-to=REMOTE/{branch} {branch}",
        )  # fmt: skip

    def _onto(self, branch: str, theirs: str) -> None:
        """The commits of `branch` alone, on top of `theirs`; only where that is simple, else nothing is changed."""
        where, meanwhile = f"{self.path} ({branch})", f"somebody pushed to {branch} meanwhile"
        remedy = f"git pull --rebase, then git push: the commits are on {branch}"
        if self.branch() == branch:
            code, _, err = self._try(*self._identity(), "rebase", "--quiet", "--no-autostash", theirs, timeout=HOOKS)
            if code != 0:
                self._try("rebase", "--abort")
                raise StepFailed(f"{meanwhile}, and ours do not go on top: {_last(err)}", where=where, remedy=remedy)
            return
        ours = self.log_between(theirs, branch)
        if len(ours) != 1:
            raise StepFailed(f"{meanwhile}, and {len(ours)} commits of ours are not there", where=where, remedy=remedy)
        onto = self._copied(ours[0].sha, self.resolve(theirs).sha)
        self._git("update-ref", "-m", "relais: on top of the remote", f"refs/heads/{branch}", onto, ours[0].sha)

    # -- write -----------------------------------------------------------------------------------------------------------

    def commit(self, paths: Sequence[str], message: str, author: str = "", branch: str = "") -> Commit:
        """Commit exactly these files, and nothing else that is changed or staged, on `branch` (else where HEAD is).

        What .gitignore names stays out. Files that are committed as they are make no new commit: asking twice is the same.
        """
        paths = [os.path.relpath(self.path / path, self.path) for path in paths]
        paths = sorted(set(paths) - set(self.ignored_in(paths)))
        branch = branch or self.branch()
        if not branch:
            raise BadInput("HEAD is on no branch", where=str(self.path), remedy="name the branch that the documents go to (git.branch)")
        if not paths:  # to git, no path means every path
            return self.resolve(branch)
        if branch == self.branch():
            return self._commit_here(paths, message, author)
        return self._commit_there(paths, message, author, branch)

    def _commit_here(self, paths: Sequence[str], message: str, author: str) -> Commit:
        """By `git commit`, so that the team's hooks run."""
        self._git("add", "--", *paths)
        if self._try("diff", "--quiet", "HEAD", "--", *paths)[0] == 0:
            return self.head()
        said = (f"--author={self._author(author)}", f"--message={message}")
        code, out, err = -1, "", ""
        try:
            code, out, err = self._try(*self._identity(), "commit", "--quiet", *said, "--only", "--", *paths, timeout=HOOKS)
        finally:
            if code != 0:
                self._try("reset", "--quiet", "--", *paths)
        if code != 0:
            raise StepFailed(
                f"git does not commit the documents: {_last(out + err, 5)}", where=str(self.path),
                remedy="a hook may have refused them: the files are written, commit them by hand",
            )  # fmt: skip
        return self.head()

    def _commit_there(self, paths: Sequence[str], message: str, author: str, branch: str) -> Commit:
        """On a branch that is not checked out, without touching tree or index: HEAD with these files, laid onto the branch."""
        head, tip = self.head().sha, self.resolve(branch).sha
        with tempfile.TemporaryDirectory(prefix="relais-index-") as folder:
            index = f"GIT_INDEX_FILE={folder}/index"
            self._git("read-tree", head, setting=index)
            self._git("add", "--", *paths, setting=index)
            tree = self._git("write-tree", setting=index).strip()
        if tree == self._git("rev-parse", f"{head}^{{tree}}").strip():
            return self.resolve(branch)
        made = self._made(tree, head, message, self._author(author))
        if tip != head:
            made = self._copied(made, tip)
            if self._git("rev-parse", f"{made}^{{tree}}") == self._git("rev-parse", f"{tip}^{{tree}}"):
                return self.resolve(tip)
        local = self._sha(f"refs/heads/{branch}") or "0" * len(made)
        self._git("update-ref", "-m", "relais: documents", f"refs/heads/{branch}", made, local)
        return self.resolve(made)

    def _made(self, tree: str, parent: str, message: str, author: str, date: str = "") -> str:
        name, _, mail = author.rstrip(">").rpartition(" <")
        dated = [f"GIT_AUTHOR_DATE={date}"] if date else []
        who = (f"GIT_AUTHOR_NAME={name}", f"GIT_AUTHOR_EMAIL={mail}", *dated)
        return self._git(*self._identity(), "commit-tree", tree, "-p", parent, "-m", message, setting=who).strip()

    def _copied(self, commit: str, onto: str) -> str:
        """One commit again, with another parent; by a merge of trees, which needs no working tree."""
        code, out, err = self._try("merge-tree", "--write-tree", "--name-only", onto, commit)
        if code != 0:
            conflicts = ", ".join(out.split("\n\n")[0].splitlines()[1:4]) if code == 1 else f"{_last(err)} (git 2.38 or newer can)"
            raise StepFailed(
                f"the commit does not go on top of {onto[:7]}: {conflicts}", where=str(self.path),
                remedy="the files are written in the working tree: merge and commit them by hand",
            )  # fmt: skip
        message = self._git("log", "-1", "--format=%B", commit).rstrip("\n")
        author, date = self._git("log", "-1", "--format=%an <%ae>%x1f%aI", commit).strip().split("\x1f")
        return self._made(out.split()[0], onto, message, author, date)

    def _author(self, author: str) -> str:
        """`Name <mail>`; a bare name gets the mail of whoever runs this."""
        name, _, mail = author.rstrip("> ").partition("<")
        ours, our_mail = self._configured()
        return f"{_word(name) or ours} <{_word(mail) or our_mail}>"

    def _identity(self) -> tuple[str, ...]:
        name, mail = self._configured()
        return "-c", f"user.name={name}", "-c", f"user.email={mail}"

    def _configured(self) -> tuple[str, str]:
        """Git refuses a commit of nobody: where nobody is configured, it is Relais."""
        found = (self._try("config", key)[1].strip() for key in ("user.name", "user.email"))
        name, mail = found
        return name or "Relais", mail or "relais@localhost"

    # -- git -------------------------------------------------------------------------------------------------------------

    def _try(
        self, *arguments: str, timeout: float = LOCAL, given: bytes | None = None, setting: str | Sequence[str] = ()
    ) -> tuple[int, str, str]:
        code, out, err = _call(arguments, self.path, timeout, given, (setting,) if isinstance(setting, str) else setting)
        return code, out.decode(errors="replace"), err

    def _git(self, *arguments: str, timeout: float = LOCAL, setting: str | Sequence[str] = ()) -> str:
        code, out, err = self._try(*arguments, timeout=timeout, setting=setting)
        if code != 0:
            raise _ours(err, f"git {_verb(arguments)}", str(self.path))
        return out


def redacted(text: str) -> str:
    """Without what stands before the @ of an address."""
    return _USERINFO.sub(r"\1***@", text)


def _public(url: str) -> str:
    """The address as it may be shown; one that carries a credential is refused, because Git would write it into its files."""
    user = url.partition("://")[2].partition("/")[0].rpartition("@")[0]
    if ":" in user or len(user) > _NAME:
        raise BadInput(
            "the URL holds a credential, which would end up in process lists, files and run parameters", where=redacted(url),
            remedy="give the URL without it: Git asks its credential helper (git config credential.helper) or uses an SSH key",
        )  # fmt: skip
    if url.startswith("-"):
        raise BadInput("this is not a Git URL", where=url)
    return url


def _call(
    arguments: Sequence[str], cwd: Path, timeout: float, given: bytes | None = None, settings: Sequence[str] = ()
) -> tuple[int, bytes, str]:
    """One git command in a process group of its own: at the limit its helpers (ssh, hooks) end with it."""
    command = [*_ENV, *settings, "git", *_SETTINGS, *arguments]
    pipe = subprocess.PIPE
    stdin = subprocess.DEVNULL if given is None else pipe
    try:
        process = subprocess.Popen(command, cwd=cwd, stdin=stdin, stdout=pipe, stderr=pipe, start_new_session=True)
    except FileNotFoundError as problem:
        raise BadInput("there is no such directory", where=str(cwd)) from problem
    try:
        out, err = process.communicate(given, timeout)
    except subprocess.TimeoutExpired as late:
        raise _late(_verb(arguments), timeout, cwd) from late
    finally:
        _end(process)
    text = redacted(err.decode(errors="replace"))
    if process.returncode == 127:
        raise Denied("git is not installed", where=str(cwd), remedy="install git")
    return process.returncode, out, text


def _late(verb: str, timeout: float, cwd: Path) -> RelaisError:
    what = f"git {verb} was not finished after {timeout:g} s and was ended"
    if verb in ("clone", "fetch", "push"):
        return Unavailable(what, where=str(cwd), remedy="is the remote reachable from here?")
    return StepFailed(what, where=str(cwd), remedy="is a hook of the repository waiting for something?")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Asked first: git takes its lock files away."""
    if process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError, subprocess.TimeoutExpired):
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(2)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _answer(arguments: Sequence[str], cwd: Path, timeout: float, where: str) -> str:
    code, out, err = _call(arguments, cwd, timeout)
    if code != 0:
        raise _ours(err, where)
    return out.decode(errors="replace")


def _ours(err: str, command: str, where: str = "") -> RelaisError:
    """What git said, as one of our errors."""
    said, place = _last(err), f"{where} ({command})" if where else command
    if _ABSENT.search(err):
        return Missing(said, where=place, remedy="check the address, and that this user may read it")
    if _FORBIDDEN.search(err):
        return Denied(said, where=place, remedy="check this user's key or credential helper, and the branch's protection")
    if _OUTAGE.search(err):
        return Unavailable(said, where=place, remedy="it may pass: another git process, the network or the remote")
    return StepFailed(said, where=place)


def _verb(arguments: Sequence[str]) -> str:
    rest = iter(arguments)
    for argument in rest:
        if argument not in ("-c", "-C"):
            return argument
        next(rest, None)
    return ""


def _last(text: str, lines: int = 1) -> str:
    """The lines that say what is wrong: git's own `fatal:` and `error:`, else the last ones."""
    said = [line.strip() for line in redacted(text).splitlines() if line.strip() and not line.startswith(("hint:", "To "))]
    pointed = [line for line in said if line.startswith(("fatal:", "error:", "!", "remote:"))]
    return " ".join((pointed or said)[-lines:] if lines > 1 or not pointed else pointed[:2]) or "git said nothing"


def _paths(text: str) -> tuple[str, ...]:
    return tuple(filter(None, text.split("\0")))


def _word(text: str) -> str:
    return re.sub(r"[<>\n\r\0]", "", text).strip()
