"""Each document of each kind of release, in both languages, against tests/golden/documents.

To write the files again after a change of a template: GOLDEN_UPDATE=1 pytest tests/documents, then read the difference in Git.
The pages before the edit are before.fr.md and before.en.md: the sample's own in French, other shapes in English.
"""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from released import BOXES, PLAN, RECORDS

from relais import documents
from relais.documents import Language
from relais.model import Line, Record

GOLDEN = Path(__file__).parent.parent / "golden" / "documents"
REPORT = "docs/deployments/2025-10-09-deploy-p1-memory.md"
LANGUAGES: tuple[Language, ...] = ("fr", "en")


def agrees(path: Path, text: bytes) -> None:
    if os.environ.get("GOLDEN_UPDATE"):
        path.write_bytes(text)
    assert text.decode() == path.read_text(), f"{path} differs; GOLDEN_UPDATE=1 writes it again"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RECORDS)
def test_the_report_says_what_happened(name: str, language: Language) -> None:
    text = documents.report(RECORDS[name], language, BOXES)
    assert documents.release_of(text) == RECORDS[name].id
    agrees(GOLDEN / "report" / f"{name}.{language}.md", text)


Edit = Callable[[bytes, Record, Language], bytes]
EDITS: dict[str, Edit] = {
    "index": lambda old, record, language: documents.index(old, record, language, REPORT),
    "journal": lambda old, record, language: documents.journal(old, record, language, REPORT),
    "sync": lambda old, record, language: documents.sync(old, record, language, "Codex (cloud)", REPORT),
}


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("name", RECORDS)
@pytest.mark.parametrize("kind", EDITS)
def test_the_pages_that_people_keep_get_their_entry_once(kind: str, name: str, language: Language) -> None:
    before = (GOLDEN / kind / f"before.{language}.md").read_bytes()
    after = EDITS[kind](before, RECORDS[name], language)
    assert EDITS[kind](after, RECORDS[name], language) == after
    agrees(GOLDEN / kind / f"{name}.{language}.md", after)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("kind", EDITS)
def test_a_page_that_is_not_there_is_made_with_its_title(kind: str, language: Language) -> None:
    after = EDITS[kind](b"", RECORDS["promoted"], language)
    assert after.startswith(b"# ")
    assert EDITS[kind](after, RECORDS["promoted"], language) == after
    agrees(GOLDEN / kind / f"from-nothing.{language}.md", after)


BLOCKED = PLAN.model_copy(
    update={"lines": (*PLAN.lines, Line(kind="removed", what="env SMTP_HOST", before="1f3a", allow="remove env SMTP_HOST", blocks=True))}
)


PLANS = {"canary": PLAN, "blocked": BLOCKED, "first": RECORDS["first"].plan, "at-once": RECORDS["at-once"].plan}


@pytest.mark.parametrize("name", PLANS)
def test_the_plan_page_says_what_would_change_and_who_serves(name: str) -> None:
    plan = PLANS[name]
    assert plan
    agrees(GOLDEN / "page" / f"plan-{name}.md", documents.plan_page(plan).encode())


@pytest.mark.parametrize("name", RECORDS)
def test_the_verdict_page_says_who_serves_and_why(name: str) -> None:
    agrees(GOLDEN / "page" / f"verdict-{name}.md", documents.verdict_page(RECORDS[name]).encode())


def test_the_checklist_page_shows_each_box_with_its_evidence() -> None:
    agrees(GOLDEN / "page" / "checklist.md", documents.checklist_page(RECORDS["promoted"], BOXES).encode())
