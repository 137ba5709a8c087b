"""Docker's errors, and those of a registry behind it, become ours."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

import requests
from docker.errors import APIError, DockerException, ImageNotFound, NotFound

from relais.errors import BadInput, Denied, Missing, RelaisError, StepFailed, Unavailable

_TAIL: Final = 30  # lines of a failed step that are shown
_OUTAGE: Final = re.compile(
    r"connection (?:refused|reset)|no such host|i/o timeout|timeout exceeded|handshake timeout|deadline exceeded|server misbehaving"
    r"|unreachable|no route to host|unexpected eof|\beof$|broken pipe|toomanyrequests|too many requests|unexpected http status:? 5\d\d"
    r"|\b50[234]\b",
    re.IGNORECASE,
)
_FORBIDDEN: Final = re.compile(r"denied|unauthorized|no basic auth|authentication required|insufficient_scope|forbidden", re.IGNORECASE)
_ABSENT: Final = re.compile(r"name[ _]unknown|repository .*not found|manifest[ _]unknown|does not exist|not found", re.IGNORECASE)
_FULL: Final = re.compile(r"no space left on device", re.IGNORECASE)
_PARSE: Final = re.compile(r"(?:dockerfile parse error on line|dockerfile parse error line|parse error on line) (\d+): (.*)", re.IGNORECASE)
_EMPTY: Final = re.compile(r"dockerfile cannot be empty|no build stage|file with no instructions", re.IGNORECASE)
_PREFIX: Final = re.compile(
    r"^(?:failed to solve(?: with frontend [\w.]+)?: |failed to create LLB definition: |rpc error: code = \w+ desc = )+"
)
_EXIT: Final = re.compile(r"(?:executor failed running|did not complete successfully).*exit code: (\d+)", re.DOTALL)


def short(text: str) -> str:
    """One line of it."""
    return " ".join(text.split())[:1000]


def cause(problem: BaseException) -> str:
    """Why a connection failed, in the operating system's words; the SDK wraps them in several exceptions' names."""
    seen: BaseException | None = problem
    while seen is not None:
        if isinstance(seen, OSError) and seen.strerror:
            return seen.strerror
        seen = seen.__cause__ or seen.__context__
    return short(str(problem))


def refused(item: Mapping[str, Any]) -> str:
    """The error in an item of a stream; the SDK raises none there."""
    detail = item.get("errorDetail")
    return str((detail.get("message") if isinstance(detail, dict) else "") or item.get("error") or "")


def _engine_error(message: str, where: str) -> RelaisError:
    if _FULL.search(message):
        return full_disk(where)
    if _OUTAGE.search(message):
        return Unavailable(message, where=where)
    return StepFailed(message, where=where)


@contextmanager
def translated(where: str, ours: Callable[[str, str], RelaisError] = _engine_error) -> Iterator[None]:
    """Errors of the SDK become ours; what only the message tells is left to `ours`."""
    try:
        yield
    except (NotFound, ImageNotFound) as problem:
        raise Missing(short(problem.explanation or str(problem)), where=where) from problem
    except APIError as problem:
        message = short(problem.explanation or str(problem))
        if problem.status_code in (400, 401, 403) and ours is _engine_error:
            raise Denied(message, where=where) from problem
        raise ours(message, where) from problem
    except (DockerException, requests.RequestException) as problem:
        raise Unavailable(f"the Docker Engine does not answer: {cause(problem)}", where=where, remedy="does it run?") from problem


def build_error(message: str, where: str, step: str = "", tail: tuple[str, ...] = ()) -> RelaisError:
    """A build that ended with an error: the step, what it said last, and what to do."""
    plain, output = _PREFIX.sub("", short(message)), "\n".join(tail)
    if _FULL.search(message) or _FULL.search(output):
        return full_disk(f"{where} ({step})" if step else where)
    if bad := _PARSE.search(message):
        return BadInput(bad[2], where=f"{where}:{bad[1]}", remedy="mend that line of the Dockerfile")
    if _EMPTY.search(message):
        return BadInput(plain, where=where, remedy="a Dockerfile begins with FROM")
    if "load metadata for" in step or "failed to do request" in message or "pull access denied" in message:
        image = step.partition("load metadata for ")[2] or "an image of FROM"
        return no_base(image, plain, where)
    if lost := re.search(r'"(/[^"\s]*)"?:? not found', message):
        return StepFailed(
            f"{lost[1]} is not in the build context", where=f"{where} ({step})" if step else where,
            remedy="is it committed, built, or named in .dockerignore?",
        )  # fmt: skip
    ended = _EXIT.search(message)
    what = f"{step} ended with exit code {ended[1]}" if step and ended else f"{step}: {plain}" if step else plain
    said = "\n".join(["it said last:", *(f"  {line}" for line in tail[-_TAIL:])]) if tail else ""
    return StepFailed(what, where=where, remedy=said)


def no_base(image: str, plain: str, where: str) -> RelaisError:
    """An image of FROM that is not here and does not come: for now, or for good."""
    if "no active sessions" in plain:  # BuildKit's word for "the registry asks for credentials, and nobody is there to give them"
        remedy = f"docker login {image.partition('/')[0]}, or gcloud auth configure-docker"
        return Denied(f"the registry of the base image {image} asks for credentials", where=where, remedy=remedy)
    if _FORBIDDEN.search(plain) or (_ABSENT.search(plain) and not _OUTAGE.search(plain)):
        remedy = "check its name in FROM, or log in to its registry"
        return Missing(f"the base image {image} cannot be had: {plain}", where=where, remedy=remedy)
    return Unavailable(
        f"the base image {image} is not on this machine for that platform, and its registry cannot be reached: {plain}", where=where,
        remedy="docker pull it when the registry answers, or name an image that is here",
    )  # fmt: skip


def registry_error(message: str, ref: str) -> RelaisError:
    """A registry that refused: for now, or for good."""
    host, said = ref.partition("/")[0], short(message)
    if re.search(r"tag does not exist|does not exist locally|no such image", said, re.IGNORECASE):
        return Missing(said, where=ref, remedy="build and tag it first")
    if _FORBIDDEN.search(said):
        return Denied(said, where=ref, remedy=f"gcloud auth configure-docker {host}, and check that this user may write to the repository")
    if _OUTAGE.search(said):
        return Unavailable(said, where=ref, remedy=f"the registry {host} does not answer")
    if _ABSENT.search(said):
        return Missing(said, where=ref, remedy="create the repository first: gcloud artifacts repositories create")
    if _FULL.search(said):
        return Denied(said, where=ref, remedy="the registry's disk is full")
    return StepFailed(said, where=ref)


def full_disk(where: str) -> StepFailed:
    return StepFailed(
        "the disk is full where Docker keeps its images", where=where,
        remedy="`docker image prune` removes what nothing uses, `docker builder prune` the build cache",
    )  # fmt: skip


def late(what: str, timeout: float, where: str) -> StepFailed:
    remedy = "raise its timeout in the release file"
    return StepFailed(f"{what} was not finished after {timeout:g} s and was ended", where=where, remedy=remedy)
