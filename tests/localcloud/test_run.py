"""Services and revisions, through the official clients."""

import httpx
import pytest
from google.api_core import exceptions

from clouds import PARENT, SOON, Cloud


def test_a_new_service_serves_its_image(cloud: Cloud) -> None:
    made = cloud.create("first")
    assert httpx.get(made.uri).text == made.latest_ready_revision.rsplit("/", 1)[-1]
    assert made.terminal_condition.state.name == "CONDITION_SUCCEEDED"
    assert made.generation == made.observed_generation == 1
    assert not made.reconciling
