"""Where a release's documents lie, and the file that names the image's tag."""

import re
from collections.abc import Callable
from pathlib import PurePosixPath

from relais.config import fill
from relais.documents.facts import Facts
from relais.documents.lines import Lines
from relais.model import Plan, Record

_TAG_LINE = re.compile(r"(?P<head>\s*(?:export\s+)?IMAGE_TAG\s*=\s*)(?P<quote>[\"']?)(?P<tag>[^\"'#]*?)(?P=quote)(?P<tail>\s*(?:#.*)?)")


def paths(record: Record, taken: Callable[[str], bool]) -> dict[str, str]:
    """The documents that the release file names: report, index, sync, journal; `taken` tells of another release's report."""
    asked = Facts(record).asked("documents")
    page = asked.get("sync")
    named = {
        "report": _report(str(asked["report"]), record.plan, taken) if record.plan and asked.get("report") else "",
        "index": asked.get("index"),
        "sync": page.get("path") if isinstance(page, dict) else "",
        "journal": asked.get("journal"),
    }
    return {kind: str(path) for kind, path in named.items() if path}


def _report(template: str, plan: Plan, taken: Callable[[str], bool]) -> str:
    """The report's path with its placeholders filled; -2, -3 behind the name while another release has it."""
    first = PurePosixPath(fill(template, plan.facts))
    path, number = first, 1
    while taken(str(path)):
        number += 1
        path = first.with_name(f"{first.stem}-{number}{first.suffix}")
    return str(path)


def build_tag(old: bytes, tag: str) -> bytes:
    """The tag in the form found: IMAGE_TAG=..., or the bare tag; an empty file gets IMAGE_TAG=..."""
    lines = Lines(old)
    for at, line in enumerate(lines):
        if found := _TAG_LINE.fullmatch(line):
            lines.put(at, at + 1, [f"{found['head']}{found['quote']}{tag}{found['quote']}{found['tail']}"])
            return bytes(lines)
    said = [at for at, line in enumerate(lines) if line.strip()]
    if len(said) == 1 and re.fullmatch(r"\s*[A-Za-z0-9_][A-Za-z0-9._-]*\s*", lines[said[0]]):
        lines.put(said[0], said[0] + 1, [tag])
    else:
        lines.put(len(lines), len(lines), [f"IMAGE_TAG={tag}"])
    return bytes(lines)
