"""An HTTP answer against what the release file expects of it."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from relais.config import HttpCheck, found_in
from relais.contract.texts import one_line, quoted, seconds
from relais.model import Finding

_SHOWN = 600  # characters of a body, as evidence
_DIFFERENCES = 8  # the rest is counted


class Answer(Protocol):
    """What came back: a status with headers and text, or the error because of which nothing did."""

    @property
    def status(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    @property
    def text(self) -> str: ...
    @property
    def seconds(self) -> float: ...
    @property
    def error(self) -> str | None: ...


def http_finding(check: HttpCheck, answer: Answer) -> Finding:
    """Whether an answer is what the check expects; everything that differs is named."""
    wrong = [one_line(answer.error)] if answer.error else list(_wrong(check, answer))
    more = f" (and {len(wrong) - _DIFFERENCES} more)" if len(wrong) > _DIFFERENCES else ""
    return Finding(
        name=check.name,
        kind="http",
        outcome="failed" if wrong else "passed",
        detail="; ".join(wrong[:_DIFFERENCES]) + more if wrong else f"{answer.status} in {seconds(answer.seconds)}",
        evidence=answer.text[:_SHOWN],
        seconds=round(answer.seconds, 3),
    )


def _wrong(check: HttpCheck, answer: Answer) -> Iterator[str]:
    if answer.status != check.status:
        yield f"status {check.status} expected, {answer.status} came{_why(answer.status, answer.headers)}"
    limit = check.within.total_seconds()
    if answer.seconds > limit:
        yield f"took {seconds(answer.seconds)}, at most {limit:g} s allowed"
    if check.content_type is not None:
        came = _header(answer.headers, "content-type")
        if not came.lower().startswith(check.content_type.lower()):
            yield f"content type {check.content_type} expected, {one_line(came) or 'none'} came"
    if check.body is not None and not found_in(check.body, answer.text):
        yield f"{quoted(check.body)} is not in the answer"
    if check.json_ is not None or check.json_path:
        yield from _wrong_json(check, answer.text)


def _wrong_json(check: HttpCheck, text: str) -> Iterator[str]:
    try:
        came = json.loads(text)
    except (ValueError, RecursionError):
        yield f"JSON expected, {quoted(text) if text.strip() else 'an empty answer'} came"
        return
    if check.json_ is not None:
        yield from differences(check.json_, came)
    for path, expected in check.json_path.items():
        try:
            found = at_path(came, path)
        except LookupError:
            yield f"{path}: expected {quoted(expected)}, nothing is there"
        else:
            yield from differences(expected, found, path)


_REASONS: Mapping[int, str] = {
    401: ": it asks who is calling, so it is not public (deploy.public), or this route needs a header",
    403: ": it is not open to everybody (deploy.public, or roles/run.invoker for allUsers)",
    404: ": there is no such route, so the path is wrong or its module was not loaded (see the log)",
    429: ": it has no instance to spare (deploy.max_instances)",
}


def _why(status: int, headers: Mapping[str, str]) -> str:
    if 300 <= status < 400:
        return f": it points to {one_line(_header(headers, 'location')) or 'somewhere else'}"
    return _REASONS.get(status, "")


def _header(headers: Mapping[str, str], name: str) -> str:
    return next((value for key, value in headers.items() if key.lower() == name), "")


# -- JSON -----------------------------------------------------------------------------------------------------------------


def differences(expected: Any, came: Any, path: str = "$") -> Iterator[str]:
    """Where JSON does not hold at least what is expected: of a mapping the keys named, of a list each entry, in order."""
    if isinstance(expected, Mapping) and isinstance(came, Mapping):
        for key, value in expected.items():
            below = f"{path}.{key}" if re.fullmatch(r"\w+", str(key)) else f"{path}[{quoted(key)}]"
            if key in came:
                yield from differences(value, came[key], below)
            else:
                yield f"{below}: expected {quoted(value)}, nothing is there"
    elif isinstance(expected, (list, tuple)) and isinstance(came, (list, tuple)):
        if len(expected) != len(came):
            yield f"{path}: expected {len(expected)} entries, {len(came)} came"
        for index, (one, other) in enumerate(zip(expected, came, strict=False)):
            yield from differences(one, other, f"{path}[{index}]")
    elif isinstance(expected, bool) != isinstance(came, bool) or expected != came:
        yield f"{path}: expected {quoted(expected)}, got {quoted(came)}"


_STEP = re.compile(r"""\.([A-Za-z_][\w-]*) | \[(-?[0-9]{1,9})\] | \[(["'])(.*?)\3\]""", re.VERBOSE)


def at_path(value: Any, path: str) -> Any:
    """What lies at a path such as $.items[0].name or $["a key"]; LookupError where nothing does."""
    at = 1 if path.startswith("$") else 0
    while at < len(path):
        step = _STEP.match(path, at)
        if step is None:
            raise LookupError(f"{path[at:]} is not a step of a path")
        name = step[1] if step[1] is not None else step[4]
        if name is not None and isinstance(value, Mapping):
            value = value[name]
        elif step[2] is not None and isinstance(value, list):
            value = value[int(step[2])]
        else:
            raise LookupError(step[0])
        at = step.end()
    return value
