"""The only place that reads the environment."""

import os
from pathlib import Path


def emulator_host() -> str | None:
    """The local cloud's address, host:port; without it, Google."""
    return os.environ.get("CLOUDRUN_EMULATOR_HOST", "").strip() or None


def home() -> Path:
    """Where this clone keeps its own state."""
    return Path(os.environ.get("RELAIS_HOME", "").strip() or ".relais").absolute()


def who() -> str:
    """Who releases, where neither the release file nor the run says so."""
    return os.environ.get("RELAIS_BY", "").strip() or os.environ.get("USER", "").strip() or "unknown"
