"""Both languages know every word, and a record of any stage can be told."""

import re
from pathlib import Path

import pytest
from released import BOXES, PROMOTED, RECORDS, REFUSED

import relais
from relais import contract, documents
from relais.documents.words import FRENCH
from relais.model import Record

HOME = Path(relais.__file__).parent
TEMPLATES = sorted((HOME / "templates").glob("*.j2"))
MODULES = sorted((HOME / "documents").glob("*.py"))


def words(path: Path) -> set[str]:
    return set(re.findall(r"""(?:\b_|\bsay|\btranslate)\(['"]([^'"]+)['"]""", path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", [*TEMPLATES, *MODULES], ids=lambda path: path.name)
def test_every_word_of_a_template_is_translated(path: Path) -> None:
    assert not words(path) - FRENCH.keys()


def test_no_translation_is_left_over() -> None:
    sources = [*TEMPLATES, *MODULES, *sorted((HOME / "contract").glob("*.py")), *sorted((HOME / "model").glob("*.py"))]
    text = "\n".join(path.read_text(encoding="utf-8") for path in sources)
    text = text.replace(re.findall(r"FRENCH: .*?\n}\n", text, re.DOTALL)[0], "")
    assert [word for word in FRENCH if not re.search(rf"""['"]{re.escape(word)}['"]""", text)] == []


def test_every_box_of_the_checklist_has_a_french_name() -> None:
    assert {box.name for box in contract.checklist(PROMOTED)} <= FRENCH.keys()


STAGES = ("plan", "build", "push", "deploy", "verify", "verdict", "proof", "validate_", "metrics", "revisions", "rollback")
ENDS = ("problem", "ended")


@pytest.mark.parametrize("stage", [*STAGES, *ENDS])
@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_a_record_that_lacks_a_stage_is_told_all_the_same(record: Record, stage: str) -> None:
    less = record.plus(**{stage: None})
    for text in (
        documents.report(less, "fr", BOXES),
        documents.index(b"", less, "fr"),
        documents.journal(b"", less, "fr"),
        documents.sync(b"", less, "fr", "Codex"),
        documents.verdict_page(less).encode(),
        documents.checklist_page(less, BOXES).encode(),
    ):
        assert b"None" not in text.replace(b"Not known", b"")


def test_a_record_that_was_kept_as_json_gives_the_same_bytes() -> None:
    for record in RECORDS.values():
        again = Record.model_validate_json(record.model_dump_json())
        assert documents.report(again, "fr", BOXES) == documents.report(record, "fr", BOXES)


def test_a_refusal_before_the_build_says_that_no_traffic_moved() -> None:
    assert "no traffic was moved" in documents.report(REFUSED, "en").decode()
