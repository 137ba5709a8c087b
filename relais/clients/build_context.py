"""What the builder gets: the files of a build context after .dockerignore, as a tar and as a key of their content."""

import errno
import hashlib
import os
import re
import stat
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Final

from docker.utils.build import PatternMatcher

from relais.errors import BadInput, StepFailed

_FROM: Final = re.compile(r"^FROM\s+(?:--\S+\s+)*(\S+)(?:\s+AS\s+(\S+))?\s*$", re.IGNORECASE)
_ARG: Final = re.compile(r"^ARG\s+(\w+)(?:=(.*))?$", re.IGNORECASE)
_COPIED: Final = re.compile(r"^(?:COPY|ADD)\s.*?--from=(\S+)", re.IGNORECASE)
_MOUNTED: Final = re.compile(r"--mount=\S*?\bfrom=([^\s,]+)", re.IGNORECASE)
_VARIABLE: Final = re.compile(r"\$(?:\{(\w+)(?::?[-+]([^}]*))?\}|(\w+))")


def dockerfile_path(context: Path, dockerfile: str) -> Path:
    """Where the Dockerfile lies: relative to the context, or absolute."""
    path = context / dockerfile
    if not context.is_dir():
        remedy = "set build.context to the directory that the image is built from"
        raise BadInput("there is no such directory", where=str(context), remedy=remedy)
    if not path.is_file():
        raise BadInput("there is no such Dockerfile", where=str(path), remedy="set build.dockerfile to where it is")
    return path


def context_files(context: Path, dockerfile: str) -> tuple[str, ...]:
    """The files and links that the builder gets, sorted; the Dockerfile among them where it lies in the context."""
    return tuple(path for path in _entries(context, dockerfile_path(context, dockerfile)) if not _is_directory(context / path))


def content_key(
    context: Path, dockerfile: str, args: Mapping[str, str], base_digests: Sequence[str], exclude: Sequence[str] = (), platform: str = ""
) -> str:
    """The same for the same image: paths, executable bits and bytes of what the builder gets, the Dockerfile, arguments, bases, platform.

    `exclude` are globs (as in .dockerignore) of files that a release itself writes.
    """
    path = dockerfile_path(context, dockerfile)
    written = PatternMatcher(list(exclude))
    whole = hashlib.sha256()
    for name in context_files(context, dockerfile):
        if not (exclude and written.matches(name)):  # type: ignore[arg-type]  # the stubs ask for a path, the code for text
            whole.update(_line("file", name, *_fingerprint(context / name)))
    whole.update(_line("dockerfile", hashlib.sha256(path.read_bytes()).hexdigest()))
    for name, value in sorted(args.items()):
        whole.update(_line("arg", name, value))
    for digest in sorted(base_digests):
        whole.update(_line("base", digest))
    whole.update(_line("platform", platform))
    return whole.hexdigest()


def _line(*parts: str) -> bytes:
    return "\0".join(parts).encode(errors="surrogateescape") + b"\n"


def _fingerprint(path: Path) -> tuple[str, str]:
    try:
        if path.is_symlink():
            return "link", os.readlink(path)
        with path.open("rb") as file:
            executable = os.fstat(file.fileno()).st_mode & stat.S_IXUSR
            return "executable" if executable else "plain", hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def _unreadable(path: Path, problem: OSError) -> StepFailed:
    if problem.errno == errno.ENOSPC:
        remedy = "make room there, or point TMPDIR elsewhere"
        return StepFailed("the disk is full where the build context is packed", where=tempfile.gettempdir(), remedy=remedy)
    return StepFailed(
        f"a file of the build context cannot be read: {problem.strerror or problem}", where=str(path),
        remedy="make it readable, or name it in .dockerignore",
    )  # fmt: skip


def _entries(context: Path, dockerfile: Path) -> list[str]:
    """Everything that .dockerignore leaves, directories too; sockets and the like are no part of an image."""
    inside = dockerfile.resolve().is_relative_to(context.resolve())
    own = [f"!{os.path.relpath(dockerfile.resolve(), context.resolve())}"] if inside else []
    matcher = PatternMatcher([*_ignored(context, dockerfile), *own])
    found = sorted(set(matcher.walk(str(context))))
    return [path for path in found if (context / path).is_symlink() or (context / path).is_file() or _is_directory(context / path)]


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()


def _ignored(context: Path, dockerfile: Path) -> list[str]:
    """The patterns of `<Dockerfile>.dockerignore`, as BuildKit has it, else of the context's .dockerignore."""
    for path in (dockerfile.with_name(f"{dockerfile.name}.dockerignore"), context / ".dockerignore"):
        if path.is_file():
            lines = path.read_text(encoding="utf-8-sig", errors="surrogateescape").splitlines()
            return [line.strip() for line in lines if line.strip() and not line.startswith("#")]
    return []


def tarred(context: Path, dockerfile: str) -> tuple[IO[bytes], str]:
    """The context as a tar in a temporary file, and the Dockerfile's name in it.

    The Dockerfile comes first and has a plain header: BuildKit looks at the first block to tell a tar from a Dockerfile. Owners are
    left out, times are kept: web servers make ETags of them, and no cache looks at them.
    """
    path = dockerfile_path(context, dockerfile)
    inside = path.resolve().is_relative_to(context.resolve())
    name = os.path.relpath(path.resolve(), context.resolve()) if inside else "Dockerfile"
    names = _entries(context, path)
    if (not inside and name in names) or len(name) > 90 or not name.isascii():
        name = ".relais.Dockerfile"
    out = tempfile.TemporaryFile(prefix="relais-context-")  # noqa: SIM115 - the caller closes it, and it is gone
    try:
        with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
            _add(tar, path.resolve(), name)
            for entry in names:
                if entry != name:
                    _add(tar, context / entry, entry)
        out.seek(0)
    except BaseException:
        out.close()
        raise
    return out, name


def _add(tar: tarfile.TarFile, path: Path, name: str) -> None:
    try:
        entry = tar.gettarinfo(path, name)
        if entry.islnk():  # a second name of the same file: its bytes again, so that no entry depends on another
            entry.type, entry.size = tarfile.REGTYPE, path.stat().st_size
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = int(entry.mtime)
        if not entry.isreg():
            tar.addfile(entry)
            return
        with path.open("rb") as file:
            tar.addfile(entry, file)
    except OSError as problem:
        raise _unreadable(path, problem) from problem


def base_images(dockerfile_text: str, args: Mapping[str, str]) -> tuple[str, ...]:
    """The images that a Dockerfile builds on or copies from, in order; its own stages and `scratch` are none."""
    known: dict[str, str] = {}
    stages: set[str] = set()
    found: dict[str, None] = {}
    for line in _instructions(dockerfile_text):
        if (arg := _ARG.match(line)) and not stages:
            known[arg[1]] = args.get(arg[1], _filled((arg[2] or "").strip("\"'"), known))
        names = []
        if origin := _FROM.match(line):
            names = [_filled(origin[1].strip("\"'"), known)]
        elif copied := _COPIED.match(line):
            names = [copied[1]]
        elif line.upper().startswith("RUN"):
            names = _MOUNTED.findall(line)
        for name in names:
            if name.lower() not in stages and name != "scratch" and not name.isdigit():
                found[name] = None
        if origin:
            stages.add((origin[2] or f"stage {len(stages)}").lower())
    return tuple(found)


def last_platform(dockerfile_text: str) -> str:
    """The platform that the last FROM names; "" where it leaves it to the builder.

    BuildKit marks the result with the platform that was asked of it, whatever machine the base was made for.
    """
    last = next((line for line in reversed(list(_instructions(dockerfile_text))) if _FROM.match(line)), "")
    named = re.search(r"--platform=([^\s$]+)", last)
    return named[1] if named else ""


def _filled(text: str, known: Mapping[str, str]) -> str:
    return _VARIABLE.sub(lambda m: known.get(m[1] or m[3]) or m[2] or "", text)


def _instructions(text: str) -> list[str]:
    """Logical lines: comments gone, continued lines joined."""
    lines = [line for line in text.removeprefix("\ufeff").splitlines() if not line.lstrip().startswith("#")]
    return [line.strip() for line in re.sub(r"[\\`][ \t]*\n", " ", "\n".join(lines)).split("\n")]
