"""The deployment report: one file a release, the seed's sections, every fact from the record."""

import re
from collections.abc import Iterable

from relais.documents.rendering import render
from relais.documents.words import Language
from relais.model import Finding, Record

_OWNER = re.compile(rb"<!-- relais: (\S{1,200}) -->")


def report(record: Record, language: Language, boxes: Iterable[Finding] = ()) -> bytes:
    """The whole file; `boxes` are the final checklist's."""
    made = (*(record.build.findings if record.build else ()), *(record.push.findings if record.push else ()))
    failed_build = record.problem is not None and record.build is not None and record.push is None
    text = render(
        "report.md.j2", record, language, boxes=tuple(boxes), made=made, build_log=record.build.log if failed_build and record.build else ""
    )
    return text.encode()


def release_of(document: bytes) -> str:
    """The id of the release that a report speaks of, as its first comment says; empty if it is not one of ours."""
    found = _OWNER.search(document[:400])
    return found[1].decode("ascii", "replace") if found else ""
