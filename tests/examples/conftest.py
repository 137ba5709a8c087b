"""The sample, laid out once, and the means to run it as a process."""

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from emergence import SAMPLE, Running, Start, lay_out


@pytest.fixture(scope="session")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The team's repository, for tests that leave its commits alone."""
    directory = tmp_path_factory.mktemp("sample") / "emergence-app"
    done = lay_out("repo", directory)
    assert done.returncode == 0, done.stderr
    return directory


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """start(FAULT_...="...") runs the sample's tree with these variables."""

    @contextlib.contextmanager
    def started(root: Path = SAMPLE / "app", **variables: str) -> Iterator[Running]:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        log = tmp_path / "log"
        environment = {**os.environ, "PYTHONPATH": str(root / "src"), "PYTHONUNBUFFERED": "1", "PORT": str(port), **variables}
        with log.open("w") as output:
            command = [sys.executable, "-m", "backend"]
            process = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=output, stderr=output, text=True)
        try:
            yield Running(process, f"http://127.0.0.1:{port}", log)
        finally:
            process.kill()
            process.wait(10)

    return started
