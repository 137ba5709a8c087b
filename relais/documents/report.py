"""The deployment report: one file a release, the seed's sections, every fact from the record."""

import re
from collections.abc import Iterable

from relais.documents.rendering import render
from relais.documents.words import Language
from relais.model import Finding, Record

_OWNER = re.compile(rb"<!-- relais: (\S{1,200}) -->")


def report(record: Record, language: Language, boxes: Iterable[Finding] = ()) -> bytes:
    """The whole file; `boxes` are the final checklist's."""
    stopped = record.build if record.problem and record.push is None else None
    return render("report.md.j2", record, language, boxes=tuple(boxes), build_log=stopped.log if stopped else "").encode()


def release_of(document: bytes) -> str:
    """The id of the release that a report speaks of, as its first comment says; empty if it is not one of ours."""
    found = _OWNER.search(document[:400])
    return found[1].decode("ascii", "replace") if found else ""
