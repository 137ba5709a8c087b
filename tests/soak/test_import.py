"""A thousand services with two thousand revisions in one process, from a file."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from clouds import PARENT, ROOT, Cloud, latest
from google.cloud import run_v2
from soaking import Soak
from states import given


def test_a_thousand_services_are_one_process_that_starts_soon(own_cloud: Callable[..., Cloud], tmp_path: Path, soak: Soak) -> None:
    cloud, many = own_cloud(), soak.rounds(sample=100, whole=1000)
    cloud.stop()
    (tmp_path / "many.json").write_text(json.dumps(given(*(f"s{number:04d}" for number in range(many)))))
    command = [sys.executable, "-m", "localcloud", "import", str(tmp_path / "many.json"), "--state", str(cloud.state)]
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    cloud.start()
    listed = list(cloud.services.list_services(request={"parent": PARENT, "page_size": 1000}))
    assert (len(listed), len({each.uri for each in listed})) == (many, many)
    assert not cloud.containers()
    one = run_v2.Service(name=listed[many // 2].name, traffic=[latest(100)])
    assert cloud.update(one, "traffic").traffic_statuses[0].percent == 100
