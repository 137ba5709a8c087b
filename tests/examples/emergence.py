"""The sample as the tests run it: its layout script, and its application as a process."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import httpx

ROOT = Path(__file__).resolve().parents[2]
SAMPLE = ROOT / "examples" / "emergence"
STARTS_WITHIN = 20.0


def lay_out(command: str, directory: Path, **environment: str) -> "subprocess.CompletedProcess[str]":
    """lay_out.py as a newcomer runs it."""
    arguments = [sys.executable, str(SAMPLE / "lay_out.py"), command, str(directory)]
    return subprocess.run(arguments, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False)


def git(directory: Path, *arguments: str) -> str:
    return subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, timeout=30, check=True).stdout.strip()


@dataclass
class Running:
    """A process of the sample and what it has said."""

    process: "subprocess.Popen[str]"
    url: str
    log: Path

    def get(self, path: str) -> httpx.Response:
        return httpx.get(self.url + path, timeout=10)

    def says(self) -> str:
        return self.log.read_text(encoding="utf-8")

    def answers(self, within: float = STARTS_WITHIN) -> bool:
        """Whether the health route answers before the time is up or the process has ended."""
        until = time.monotonic() + within
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                return bool(httpx.get(self.url + "/api/health", timeout=5))
            time.sleep(0.05)
        return False

    def ends(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(10)


Start = Callable[..., AbstractContextManager[Running]]
