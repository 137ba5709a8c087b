"""A thousand services with two revisions each, imported into one local cloud: its start, its memory, and how long a list takes."""

import json
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from statistics import median
from typing import Any

import grpc

from benchmarks.local import PARENT, client, serving

SERVICES, LISTS = 1000, 5


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


@dataclass(frozen=True)
class Measured:
    """KiB of memory for each idle service (the process, not the kernel's own memory for its socket); seconds to start, and to list them."""

    idle_kib: float
    start_s: float
    list_s: float


def measured(folder: Path) -> Measured:
    """One local cloud before and after the import, and then another on its state."""
    with serving(folder, "localhost:5000") as (process, port):
        _listed(port)
        alone = _memory_kib(process.pid)
        _import(folder, crowd(SERVICES))
        _listed(port)
        idle = (_memory_kib(process.pid) - alone) / SERVICES
    began = time.monotonic()
    with serving(folder, "localhost:5000") as (_, port):
        started = time.monotonic() - began
        return Measured(idle, started, median(_listed(port, SERVICES) for _ in range(LISTS)))


def _import(folder: Path, found: dict[str, Any]) -> None:
    connection = HTTPConnection((folder / "state" / "admin").read_text().strip(), timeout=120)
    connection.request("POST", "/import", json.dumps(found), {"Content-Type": "application/json"})
    answer = connection.getresponse()
    if answer.status >= 300:
        raise SystemExit(f"the import was refused: {answer.status} {answer.read().decode()[:300]}")


def _listed(port: int, services: int | None = None) -> float:
    """List the services, page by page: in how many seconds."""
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        grpc.channel_ready_future(channel).result(60)
        run, began = client(channel), time.monotonic()
        found = list(run.list_services(parent=PARENT))
        took = time.monotonic() - began
    if services is not None and len(found) != services:
        raise SystemExit(f"{len(found)} of {services} imported services are there: look at the local cloud's log")
    return took


def _memory_kib(process: int) -> int:
    """What the process alone has (Private_Dirty: the libraries that it shares with others do not count)."""
    rollup = Path(f"/proc/{process}/smaps_rollup").read_text()
    return int(rollup.partition("Private_Dirty:")[2].split()[0])
