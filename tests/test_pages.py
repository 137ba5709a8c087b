"""The pages for people: their links lead somewhere, their examples are accepted, every error has its place."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from relais import errors
from relais.config import check

ROOT = Path(__file__).parents[1]
PAGES = sorted({ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "release-file.md"})
README = (ROOT / "README.md").read_text(encoding="utf-8")


def links(page: Path) -> Iterator[str]:
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    yield from (found for found in re.findall(r"\]\(([^)\s]+)\)", prose) if "://" not in found)


def anchors(page: Path) -> set[str]:
    """The places of a page that a link may name, as GitHub makes them."""
    text = page.read_text(encoding="utf-8")
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    headings = (re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles)
    return {*headings, *re.findall(r'<a id="([^"]+)"></a>', text)}


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in links(page):
        path, _, place = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not place or place in anchors(target), link


def test_every_error_has_its_place_in_the_page_of_errors() -> None:
    classes = {name.lower() for name, known in vars(errors).items() if isinstance(known, type) and issubclass(known, errors.RelaisError)}
    assert classes <= anchors(ROOT / "docs" / "errors.md")


def test_the_release_file_that_the_readme_shows_is_accepted(tmp_path: Path) -> None:
    (example, *_) = re.findall(r"```yaml\n(service:.*?)```", README, re.DOTALL)
    (tmp_path / "release.yaml").write_text(example, encoding="utf-8")
    assert not check(tmp_path / "release.yaml")


def test_the_deployments_that_the_readme_shows_fit_into_prefect_yaml() -> None:
    (example,) = re.findall(r"```yaml\n(  - name: hello.*?)```", README, re.DOTALL)
    known = yaml.safe_load((ROOT / "prefect.yaml").read_text(encoding="utf-8") + "\n" + example)
    ours = [one for one in known["deployments"] if one["name"] == "hello"]
    assert [one["entrypoint"] for one in ours] == ["flows.release.release", "flows.preflight.preflight", "flows.rollback.rollback"]
    assert all(one["work_pool"]["name"] == "relais" for one in ours)
