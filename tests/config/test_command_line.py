"""python -m relais check and schema, as a person, an editor or a hook runs them; and the settings of the environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
FULL = Path(__file__).parent / "files" / "full.yaml"


def relais(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, "-m", "relais", *arguments], cwd=cwd, env=environment, capture_output=True, text=True, timeout=60, check=False
    )


def test_a_good_file_says_nothing(tmp_path: Path) -> None:
    done = relais("check", str(FULL), cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_problems_of_all_files_are_printed_one_a_line(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(FULL.read_text().replace("region: europe-west1", "regoin: europe-west1"))
    done = relais("check", "one.yaml", str(FULL), "two.yaml", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout.splitlines() == [
        "one.yaml:2: region: is missing -> add `region: ...`",
        "one.yaml:4: regoin: is not a key of this place -> write region",
        "two.yaml: there is no such file -> name a file that exists",
    ]
    assert done.stderr == ""


def test_without_a_name_it_is_the_release_file_here(tmp_path: Path) -> None:
    assert relais("check", cwd=tmp_path).stdout == "release.yaml: there is no such file -> name a file that exists\n"
    (tmp_path / "release.yaml").write_bytes(FULL.read_bytes())
    assert relais("check", cwd=tmp_path).returncode == 0


def test_the_schema_is_printed_as_json(tmp_path: Path) -> None:
    done = relais("schema", cwd=tmp_path)
    assert (done.returncode, json.loads(done.stdout)["title"]) == (0, "ReleaseFile")


def test_settings_come_from_the_environment_or_are_the_defaults(tmp_path: Path) -> None:
    asked = "from relais.config import emulator_host, home, who; print(emulator_host(), home(), who())"

    def said(**environment: str) -> str:
        command = [sys.executable, "-c", asked]
        environment = {"PYTHONPATH": str(ROOT), **environment}
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60, check=True).stdout.strip()

    assert said() == f"None {tmp_path}/.relais unknown"
    assert said(CLOUDRUN_EMULATOR_HOST="127.0.0.1:8800", RELAIS_HOME="/state", RELAIS_BY="FG", USER="x") == "127.0.0.1:8800 /state FG"
    assert said(USER="x", CLOUDRUN_EMULATOR_HOST="") == f"None {tmp_path}/.relais x"
