"""The session's local cloud, as the clients find it."""

from typing import Any

import pytest


@pytest.fixture
def at_cloud(cloud: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The local cloud, with the endpoint in force pointing at it."""
    monkeypatch.setenv("CLOUDRUN_EMULATOR_HOST", cloud.host)
    return cloud
