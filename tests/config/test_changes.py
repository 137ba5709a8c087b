"""What one run changes over the release file."""

from datetime import timedelta
from pathlib import Path

import pytest

from relais.config import NAMES, Changes, ReleaseFile, load, parse, slug_of
from relais.errors import BadInput

FULL = load(Path(__file__).parent / "files" / "full.yaml")
LEAST = parse(b"service: shop\nproject: shop-469005\nregion: europe-west1\nrepository: app\n")
COMMIT = "0123456789abcdef0123456789abcdef01234567"
FACTS = dict(zip(NAMES, ("20251031-142530", "2025-10-31", "p1", "shop", COMMIT, COMMIT[:7]), strict=True))


def test_no_changes_change_nothing() -> None:
    assert FULL.with_changes(Changes()) == FULL
    assert Changes.model_validate({"title": None, "skip": None}) == Changes()
    assert FULL.with_changes(Changes(title="", changes=(), skip=())) == FULL


def test_run_parameters_win_over_the_file_and_leave_it_as_it_is() -> None:
    before = FULL.model_dump_json()
    changed = FULL.with_changes(
        Changes(
            title="Hotfix",
            slug="hotfix",
            tag="fix-{timestamp}",
            by="FG",
            next=("Watch",),
            commit="1234567",
            commits=("4bde612",),
            bake="30s",
            deadline="1m",
            watch="1h",
            skip=("mypy",),
            skipped_by="FG",
        )
    )
    assert FULL.model_dump_json() == before
    assert (changed.release.title, changed.release.slug, changed.release.tag) == ("Hotfix", "hotfix", "fix-{timestamp}")
    assert (changed.release.by, changed.release.next, changed.release.commit) == ("FG", ("Watch",), "1234567")
    assert (changed.release.skip, changed.release.skipped_by) == (("mypy",), "FG")
    assert changed.preflight.git.commits == ("4bde612",)
    assert changed.canary is not None
    assert (changed.canary.bake, changed.canary.deadline) == (timedelta(seconds=30), timedelta(minutes=1))
    assert changed.validation.watch == timedelta(hours=1)
    assert changed.deploy == FULL.deploy


def test_lines_of_the_form_become_entries_with_their_parts() -> None:
    changed = LEAST.with_changes(Changes(changes=("Memory", "- queue", "- workers", "Metrics")))
    assert [(change.title, change.items) for change in changed.release.changes] == [("Memory", ("queue", "workers")), ("Metrics", ())]


@pytest.mark.parametrize(
    ("file", "changes", "said"),
    [
        (FULL, Changes(skip=("mypi",)), "run parameters: skip[0]: there is no check named mypi\n  -> write mypy"),
        (FULL, Changes(bake="5"), "run parameters: bake: 5 has no unit\n  -> write 5s if seconds are meant"),
        (FULL, Changes(bake="20m"), "run parameters: deadline: is shorter than the bake\n  -> raise deadline, or lower bake"),
        (FULL, Changes(watch="long"), "run parameters: watch: long is not a duration"),
        (FULL, Changes(slug="P 1"), "run parameters: slug: P 1 is not a slug"),
        (FULL, Changes(tag="{timstamp}"), "run parameters: tag: {timstamp} is not known here\n  -> write timestamp"),
        (FULL, Changes(commits=("main",)), "run parameters: commits: main is not a commit"),
        (LEAST, Changes(bake="30s"), "run parameters: bake: this release has no canary\n  -> leave bake out"),
        (LEAST, Changes(skip=("tests",)), "run parameters: skip[0]: there is no check named tests"),
    ],
    ids=lambda value: "" if isinstance(value, (ReleaseFile, Changes)) else str(value).splitlines()[0].partition(": ")[2],
)
def test_a_run_parameter_that_cannot_be_is_told_by_its_name(file: ReleaseFile, changes: Changes, said: str) -> None:
    with pytest.raises(BadInput) as caught:
        file.with_changes(changes)
    assert str(caught.value).startswith(said)


def test_a_run_parameter_is_a_plain_box_of_the_form() -> None:
    assert {field["type"] for field in Changes.model_json_schema()["properties"].values()} == {"string", "array"}


def test_every_run_parameter_has_a_title_a_description_and_an_example_for_the_form() -> None:
    for name, field in Changes.model_json_schema()["properties"].items():
        assert field.keys() >= {"title", "description", "examples"}, name


def test_tag_and_revision_are_made_from_the_facts() -> None:
    assert LEAST.image_tag(FACTS) == "deploy-0123456-20251031-142530"
    assert LEAST.revision(FACTS) == "shop-0123456"
    assert FULL.revision(FACTS) == "emergence-app-p1-memory"


def test_a_tag_with_nothing_behind_it_is_refused() -> None:
    file = LEAST.with_changes(Changes(tag="fix-{slug}"))
    with pytest.raises(BadInput, match="has no value here"):
        file.image_tag({**FACTS, "slug": ""})


@pytest.mark.parametrize(
    ("text", "slug"), [("Phase P1 - Enrichissement mémoire", "phase-p1-enrichissement-memoire"), ("!", ""), ("a" * 50, "a" * 40)]
)
def test_a_slug_is_made_from_a_title(text: str, slug: str) -> None:
    assert slug_of(text) == slug
