"""Google's own Node client, which nobody here wrote, releases on the local cloud over gRPC."""

import json
import subprocess
from pathlib import Path

import pytest
from clouds import PARENT, Cloud
from google.cloud import run_v2

NODE = Path(__file__).parents[1] / "node"


def test_the_node_client_creates_deploys_at_zero_shifts_meets_a_conflict_lists_and_deletes(cloud: Cloud) -> None:
    if not (NODE / "node_modules").is_dir():
        pytest.fail("the Node client is not installed: `make test` installs it (npm ci in tests/node)", pytrace=False)
    command = ["node", "release.mjs", f"127.0.0.1:{cloud.port}", PARENT, "node-app", cloud.image]
    done = subprocess.run(command, cwd=NODE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)

    assert told["uri"].startswith("http://127.0.0.1:")
    assert (told["condition"], told["cpu"]) == (run_v2.Condition.State.CONDITION_SUCCEEDED, "1000m")
    candidate, stable = told["expected"]
    assert told["statuses"] == [{"revision": stable, "percent": 100, "tag": ""}, {"revision": "", "percent": 0, "tag": "candidate"}]
    assert (told["stable"], told["tagged"], told["shifted"]) == ("1", "2", "2")
    assert told["stale"]["code"] == 10
    assert told["stale"]["details"].startswith("Conflict for resource 'node-app': version '")
    assert told["revisions"] == [candidate, stable]
    assert told["missing"]["code"] == 5
    assert "does not exist" in told["missing"]["details"]
    assert told["left"] == []
