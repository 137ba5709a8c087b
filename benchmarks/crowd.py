"""A thousand services with two revisions each, imported into one local cloud: its start, its memory, and how long a list takes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import grpc
from google.cloud import run_v2

from benchmarks.local import PARENT, ROOT, client, serving

SERVICES = 1000


def crowd(services: int) -> dict[str, Any]:
    """The import's file: every service splits 50/50 over two revisions."""
    image = f"localhost:5000/bench/none/none@sha256:{'0' * 64}"
    found: dict[str, Any] = {"services": [], "revisions": []}
    for number in range(services):
        name = f"{PARENT}/services/s{number}"
        revisions = [f"s{number}-a", f"s{number}-b"]
        containers = [{"image": image, "env": [{"name": f"V{index}", "value": "x" * 40} for index in range(5)]}]
        traffic = [{"type": "TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION", "revision": each, "percent": 50} for each in revisions]
        found["services"].append({"name": name, "invokerIamDisabled": True, "template": {"containers": containers}, "traffic": traffic})
        found["revisions"] += [{"name": f"{name}/revisions/{each}", "containers": containers} for each in revisions]
    return found


def measured(folder: Path) -> tuple[float, float, float]:
    """KiB of memory for each idle service, seconds from start to serving, seconds to list all of them."""
    with serving(folder / "empty", "localhost:5000") as (process, _):
        alone = _resident_kib(process.pid)
    file = folder / "crowd.json"
    file.write_text(json.dumps(crowd(SERVICES)))
    command = [sys.executable, "-m", "localcloud", "import", str(file), "--state", str(folder / "full" / "state")]
    subprocess.run(command, cwd=ROOT, check=True, timeout=120, stdout=subprocess.DEVNULL)
    began = time.monotonic()
    with serving(folder / "full", "localhost:5000") as (process, port), grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        started = time.monotonic() - began
        idle = (_resident_kib(process.pid) - alone) / SERVICES
        began = time.monotonic()
        listed: list[run_v2.Service] = list(client(channel).list_services(parent=PARENT))
        if len(listed) != SERVICES:
            raise SystemExit(f"{len(listed)} of {SERVICES} imported services are there: look at the local cloud's log")
        return idle, started, time.monotonic() - began


def _resident_kib(process: int) -> int:
    status = Path(f"/proc/{process}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])
