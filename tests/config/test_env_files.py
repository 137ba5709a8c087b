"""Environment variables in YAML: each value is the text that was written, or the file is refused."""

from pathlib import Path

import pytest

from relais.config import load_env_file
from relais.errors import BadInput

HERE = Path(__file__).parent
BROKEN = sorted((HERE / "broken_env").glob("*.yaml"))


def read(tmp_path: Path, content: bytes) -> dict[str, str]:
    path = tmp_path / "env.yaml"
    path.write_bytes(content)
    return load_env_file(path)


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_a_broken_env_file_is_told_with_its_line(path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        load_env_file(path)
    assert f"{caught.value}\n".replace(f"{path.parent}/", "") == path.with_suffix(".txt").read_text()


@pytest.mark.parametrize("text", ["0", "true", "yes", "1e3", "0123", "1.10", "2025-10-31", "é, à: no", "a=b", "postgres://u:p@h/db?a=1&b=2"])
def test_a_value_stays_the_text_that_was_written(text: str, tmp_path: Path) -> None:
    quoted = text.replace(": ", "\\x3a ")
    assert read(tmp_path, f'A: "{quoted}"\nB: x\n'.encode()) == {"A": text, "B": "x"}
    if ": " not in text:
        assert read(tmp_path, f"A: {text}\n".encode()) == {"A": text}


def test_json_over_several_lines_stays_as_it_is(tmp_path: Path) -> None:
    assert read(tmp_path, b'A: |\n  {"a": 1,\n   "b": "C=d"}\n') == {"A": '{"a": 1,\n "b": "C=d"}\n'}


def test_a_connection_string_is_no_swallowed_variable(tmp_path: Path) -> None:
    assert read(tmp_path, b"A: Server=db; UID=sa; TIMEOUT=5\n") == {"A": "Server=db; UID=sa; TIMEOUT=5"}


def test_the_empty_text_is_a_value_when_it_is_written(tmp_path: Path) -> None:
    assert read(tmp_path, b'\xef\xbb\xbfA: ""\r\nB: \'x\'\r\n') == {"A": "", "B": "x"}


def test_an_empty_mapping_sets_nothing(tmp_path: Path) -> None:
    assert read(tmp_path, b"{}\n") == {}


def test_a_value_never_shows_in_an_error(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        read(tmp_path, b"PASSWORD: hunter2 USER=x\nPORT: hunter2\nLIST: [hunter2]\n")
    assert "hunter2" not in str(caught.value)
