"""What is read from a release file, and everything that is wrong with one."""

from datetime import timedelta
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]
import pytest
import yaml

from relais.config import ReleaseFile, json_schema, load, parse
from relais.config.reading import examine
from relais.errors import BadInput

HERE = Path(__file__).parent
FULL = HERE / "files" / "full.yaml"
MINIMAL = b"service: shop\nproject: shop-469005\nregion: europe-west1\nrepository: app\n"
BROKEN = sorted((HERE / "broken").glob("*.yaml"))


def release(more: str) -> ReleaseFile:
    return parse(MINIMAL + more.encode())


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_file_is_told_with_line_key_and_remedy(path: Path) -> None:
    found, problems = examine(path.read_bytes(), "release.yaml")
    assert found is None
    assert "".join(f"{problem}\n" for problem in problems) == path.with_suffix(".txt").read_text()


def test_there_are_more_than_a_hundred_broken_files() -> None:
    assert len(BROKEN) > 100


def test_a_file_with_everything_is_read_whole() -> None:
    full = load(FULL)
    assert full.release.tag == "deploy-p1-{timestamp}"
    assert full.release.changes[0].title == "P1.1 Déportation asynchrone"
    assert full.release.changes[0].items[0] == "MemoryTaskQueue avec 2 workers asyncio"
    assert [(check.name, check.passed, check.required) for check in full.preflight.checks][3] == ("all tests", 154, False)
    assert full.build is not None
    assert full.build.args == {"PYTHON": "3.10", "BUILD": "0123"}
    assert full.build.size.warn is not None
    assert full.build.size.warn.bytes == 2_000_000_000
    assert full.deploy.memory is not None
    assert (full.deploy.memory.bytes, full.deploy.memory.text) == (2 * 2**30, "2Gi")
    assert full.deploy.timeout == timedelta(minutes=5)
    assert full.deploy.public is True
    assert full.verify.http[0].name == "GET /api/health"
    assert full.verify.http[3].send == {"n": 1, "deep": [True, None, 1000.0, "1"]}
    assert full.canary is not None
    assert (full.canary.steps, full.canary.judge.slo, full.canary.deadline) == ((10,), 0.01, timedelta(minutes=10))
    assert full.canary.probes is not None
    assert full.canary.probes.rate == 2.0
    assert full.validation.counters[0].when.json_ == {"message": "Je préfère utiliser Python pour mes projets"}
    assert full.documents.report == "docs/deployments/{date}-deploy-{slug}.md"


def test_four_lines_are_a_release_file() -> None:
    least = parse(MINIMAL)
    assert (least.canary, least.verify.http, least.documents.report) == (None, (), None)
    assert least.build is not None
    assert least.build.timeout == timedelta(minutes=20)
    assert (least.deploy.public, least.deploy.memory) == ("keep", None)
    assert (least.validation.on_failure, least.validation.on_worse) == ("rollback", "notify")


def test_a_release_file_is_the_same_after_a_way_through_json() -> None:
    full = load(FULL)
    assert ReleaseFile.model_validate(full.model_dump(mode="json")) == full
    assert ReleaseFile.model_validate_json(full.model_dump_json()) == full


@pytest.mark.parametrize("text", ["1234567", "0123456", "4e10", "1_000", "0x12", "123e4567"])
def test_a_commit_of_digits_stays_the_text_that_was_written(text: str) -> None:
    if set(text) <= set("0123456789abcdef"):
        assert release(f"release: {{commit: {text}}}\n").release.commit == text
    else:
        with pytest.raises(BadInput, match="is not a commit"):
            release(f"release: {{commit: {text}}}\n")


@pytest.mark.parametrize(
    "text", ["yes", "no", "on", "off", "true", "1e3", "0123", "1.10", "2025-10-31", "12:30:45", ".inf", "0o17", "1_000"]
)
def test_a_text_stays_the_text_that_was_written(text: str) -> None:
    assert release(f"release: {{title: {text}}}\n").release.title == text
    build = release(f"build: {{args: {{A: {text}}}}}\n").build
    assert build is not None
    assert build.args == {"A": text}


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", 1), ("1e3", 1000.0), ("01", "01"), ("yes", "yes"), ("'1'", "1"), ("null", None)]
)
def test_expected_json_is_read_as_yaml_1_2_says(text: str, value: object) -> None:
    (check,) = release(f"verify: {{http: [{{get: /a, json: {{a: {text}}}}}]}}\n").verify.http
    assert check.json_ == {"a": value}


@pytest.mark.parametrize(
    ("send", "json", "body"), [("{a: 1}", {"a": 1}, None), ("plain", None, "plain"), ('"1"', None, "1"), ("1", 1, None)]
)
def test_a_check_sends_a_text_as_it_is_and_anything_else_as_json(send: str, json: object, body: str | None) -> None:
    asked = f"{{post: /a, headers: {{A: {{secret: block}}}}, send: {send}, json: {{ok: true}}}}"
    (check,) = release(f"verify: {{http: [{asked}]}}\n").verify.http
    assert (check.request.name, check.request.json_, check.request.body) == ("POST /a", json, body)
    assert check.request.headers == check.headers


def test_a_byte_order_mark_and_dos_line_ends_do_not_matter() -> None:
    assert parse(b"\xef\xbb\xbf" + MINIMAL.replace(b"\n", b"\r\n")) == parse(MINIMAL)


def test_anchors_aliases_and_merges_are_followed() -> None:
    file = release("push: &limits {timeout: 7m}\nbuild:\n  <<: *limits\n  target: &name last\n  args: {STAGE: *name}\n")
    assert file.build is not None
    assert (file.build.timeout, file.build.target, file.build.args) == (timedelta(minutes=7), "last", {"STAGE": "last"})


@pytest.mark.parametrize(
    ("text", "seconds"), [("300s", 300), ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("24h", 86400)]
)
def test_durations_are_read_with_their_unit(text: str, seconds: int) -> None:
    assert release(f"validate: {{watch: {text}}}\n").validation.watch == timedelta(seconds=seconds)


def test_build_false_releases_an_image_that_exists() -> None:
    digest = "sha256:" + "0" * 64
    file = release(f"build: false\ndeploy: {{image: '{digest}'}}\n")
    assert (file.build, file.deploy.image) == (None, digest)
    assert ReleaseFile.model_validate(file.model_dump(mode="json")) == file


@pytest.mark.parametrize(("text", "limit"), [("false", None), ("true", timedelta(hours=24)), ("2h", timedelta(hours=2))])
def test_an_approval_is_a_truth_or_its_time_limit(text: str, limit: timedelta | None) -> None:
    canary = release(f"canary: {{approve: {text}}}\n").canary
    assert canary is not None
    assert canary.approve == limit


def test_the_deadline_of_a_step_is_twice_its_bake_where_it_is_not_given() -> None:
    canary = release("canary: {bake: 20m}\n").canary
    assert canary is not None
    assert canary.deadline == timedelta(minutes=40)


def test_braces_of_a_shell_are_left_alone_in_commands() -> None:
    (smoke,) = release("validate: {smoke: {run: \"awk '{{print}}' ${HOME} {url} {}\"}}\n").validation.smoke
    assert smoke.run == "awk '{{print}}' ${HOME} {url} {}"


def test_a_release_file_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        parse(MINIMAL).service = "other"


@pytest.mark.parametrize(
    ("name", "said"), [("nothing.yaml", "no such file"), (".", "is a directory"), ("a\0b", "no such file"), ("/dev/null", "is not a file")]
)
def test_what_is_no_file_is_said(name: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=said):
        load(tmp_path / name)


def test_a_file_that_cannot_be_read_is_said() -> None:
    with pytest.raises(BadInput, match="cannot be read"):
        load(Path("/proc/self/mem"))  # not even by root: nothing is mapped where it begins


def test_a_file_of_more_than_a_megabyte_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "release.yaml"
    path.write_bytes(MINIMAL + b"#" * 1_000_000)
    with pytest.raises(BadInput, match="larger than 1 MB"):
        load(path)


def test_all_problems_are_one_error_with_every_line() -> None:
    with pytest.raises(BadInput) as caught:
        release("regoin: a\npush: {timeout: 5}\n")
    assert str(caught.value).splitlines() == [
        "release.yaml: 2 problems",
        "  release.yaml:5: regoin: is not a key of this place -> write region",
        "  release.yaml:6: push.timeout: 5 has no unit -> write 5s if seconds are meant",
        "  -> mend each of them",
    ]


def test_the_json_schema_accepts_the_file_with_everything_and_refuses_a_misspelt_key() -> None:
    validator = jsonschema.Draft202012Validator(json_schema())
    full = yaml.safe_load(FULL.read_text())
    full["preflight"]["waivers"][0]["until"] = "2025-10-31"
    full["build"]["args"] = {"PYTHON": "3.10"}
    assert [error.message for error in validator.iter_errors(full)] == []
    assert not validator.is_valid({**full, "canery": {}})
    assert not validator.is_valid({**full, "canary": None})


def test_every_key_of_the_schema_has_a_description() -> None:
    schema = json_schema()
    for name, section in {"ReleaseFile": schema, **schema["$defs"]}.items():
        mapping = next((form for form in section.get("anyOf", []) if "properties" in form), section)
        for key, field in mapping.get("properties", {}).items():
            told = schema["$defs"][field["$ref"].rpartition("/")[2]] if "description" not in field else field
            assert told["description"], f"{name}.{key}"
