"""The reference page of the release file: it is what the models say, whole and today."""

import subprocess
import sys
from pathlib import Path

from relais import config
from relais.config import ReleaseFile, reference
from relais.config.reference import NOT_YET

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "emergence" / "app" / "release.yaml"
PAGE = ROOT / "docs" / "release-file.md"
ANEW = "python -m relais reference examples/emergence/app/release.yaml > docs/release-file.md"


def test_the_page_in_docs_is_what_the_models_say_today() -> None:
    assert PAGE.read_text(encoding="utf-8") == reference(EXAMPLE.read_text(encoding="utf-8")), f"render it anew: {ANEW}"


def test_every_key_of_every_section_has_a_row_with_a_sentence() -> None:
    page = reference()
    for key, field in ReleaseFile.model_fields.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{field.alias or key}` |"))
        assert field.description in row
    assert not [line for line in page.splitlines() if line.startswith("| `") and line.endswith("|  |")]


def test_every_link_of_the_page_leads_somewhere() -> None:
    page = reference()
    linked = {part.partition(")")[0] for part in page.split("](#")[1:]}
    assert linked == {name for name in linked if f'<a id="{name}"></a>' in page}


def test_what_is_not_there_yet_is_said_of_keys_that_exist() -> None:
    assert not [(section, key) for section, key in NOT_YET if key not in vars(config)[section].model_fields]


def test_the_page_is_printed_with_and_without_an_example() -> None:
    def printed(*arguments: str) -> str:
        command = [sys.executable, "-m", "relais", "reference", *arguments]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=True).stdout

    assert printed() == reference()
    assert "service: emergence-app" in printed(str(EXAMPLE))
