"""Whatever the bytes: a release file, or one clear error; and what is written is read back."""

from datetime import timedelta
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from relais.config import ReleaseFile, duration, duration_text, fill, placeholders, size
from relais.config.reading import examine

HERE = Path(__file__).parent
FULL = (HERE / "files" / "full.yaml").read_bytes()


def is_read_or_told(data: bytes) -> None:
    found, problems = examine(data, "release.yaml")
    if found is not None:
        assert not problems
        assert ReleaseFile.model_validate(found.model_dump(mode="json")) == found
    for problem in problems:
        assert problem.where.startswith("release.yaml")
        assert problem.remedy or "must be" in problem.what
        assert "\n" not in problem.what
        str(problem).encode()


@given(st.binary(max_size=200))
def test_any_bytes_are_a_release_file_or_one_clear_error(data: bytes) -> None:
    is_read_or_told(data)


@given(st.text(alphabet="ab:-?[]{}&*!|>'\"%@`#,. \n\t\\<=~0179xue\ufeff\u2028", max_size=60))
def test_any_yaml_punctuation_is_a_release_file_or_one_clear_error(text: str) -> None:
    is_read_or_told(text.encode())


@settings(max_examples=150, deadline=None)
@given(st.integers(0, len(FULL) - 1), st.integers(0, 12), st.binary(max_size=8))
def test_a_file_with_a_wound_anywhere_is_read_or_told(start: int, length: int, put: bytes) -> None:
    is_read_or_told(FULL[:start] + put + FULL[start + length :])


KEYS = ["service", "project", "release", "deploy", "canary", "validate", "verify", "http", "get", "json", "steps", "env", "memory", "<<"]
VALUES = st.recursive(
    st.sampled_from(["", "~", "true", "yes", "5m", "10", "2Gi", "/a", "'x'", "{slug}", "[]", "{}", "app", "europe-west1"]),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
        st.dictionaries(st.sampled_from(KEYS), inner, max_size=4).map(
            lambda entries: "{" + ", ".join(f"{key}: {value}" for key, value in entries.items()) + "}"
        ),
    ),
    max_leaves=8,
)


@settings(deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=6))
def test_any_shape_is_a_release_file_or_one_clear_error(entries: dict[str, str]) -> None:
    is_read_or_told("".join(f"{key}: {value}\n" for key, value in entries.items()).encode())


@given(st.integers(0, 366 * 86_400_000).map(lambda count: timedelta(milliseconds=count)))
def test_a_duration_is_read_back_from_its_text(span: timedelta) -> None:
    assert duration(duration_text(span)) == span


@given(st.integers(0, 999_999), st.sampled_from(["B", "k", "M", "G", "Ki", "Mi", "Gi", "KB", "MB", "GB", "MiB"]))
def test_a_size_keeps_its_text_and_counts_its_bytes(count: int, unit: str) -> None:
    found = size(f"{count}{unit}")
    power = {"B": 0, "K": 1, "M": 2, "G": 3}[unit[0].upper()]
    assert found.bytes == count * (1024 if "i" in unit else 1000) ** power
    assert size(str(found)) == found


@given(st.text(alphabet="ab{}$_0 ", max_size=30))
def test_a_text_is_filled_whole_or_not_at_all(text: str) -> None:
    facts = dict.fromkeys(placeholders(text), "X")
    assert placeholders(fill("{{x}}", {})) == ("x",)
    assert len(fill(text, facts)) <= len(text) + len(facts) * len(text)
