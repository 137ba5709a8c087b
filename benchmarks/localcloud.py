"""How quick the local cloud is: through its split against the bare container, to a new split, to a new revision.

`make bench-localcloud` runs it. It starts a registry and a local cloud of its own, on free ports and in a folder that goes afterwards.
"""

import json
import secrets
import subprocess
import sys
import time
from dataclasses import dataclass
from http.client import HTTPConnection
from statistics import median
from typing import Any

import docker
import grpc
from google.api_core.future.polling import DEFAULT_POLLING
from google.cloud import run_v2

from benchmarks import crowd
from benchmarks.load import Load
from benchmarks.local import PARENT, ROOT, client, registry_with_quick_image, serving, temporary_folder

NAME = f"{PARENT}/services/bench"
CONNECTIONS, SECONDS, PAIRS = 32, 4.0, 5
SPLITS, DEPLOYS = 25, 7
RATIO, SPLIT_MS, DEPLOY_S = 0.3, 100.0, 2.0
IDLE_KIB, START_S, LIST_S = 64.0, 20.0, 0.5  # for a thousand imported services
SOON = DEFAULT_POLLING.with_delay(initial=0.02, maximum=0.05).with_timeout(60)
BY_NAME = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_REVISION
TO_LATEST = run_v2.TrafficTargetAllocationType.TRAFFIC_TARGET_ALLOCATION_TYPE_LATEST


@dataclass(frozen=True)
class Figure:
    """One measured figure and its target."""

    name: str
    value: float
    unit: str
    target: float
    at_least: bool = False
    more: str = ""

    @property
    def met(self) -> bool:
        return self.value >= self.target if self.at_least else self.value < self.target

    def __str__(self) -> str:
        wanted = f"{'at least' if self.at_least else 'below'} {self.target:g} {self.unit}".strip()
        value = f"{self.value:.2f} {self.unit}".strip()
        return f"{self.name}: {value}; target: {wanted}: {'met' if self.met else 'missed'}" + (f"  ({self.more})" if self.more else "")


@dataclass(frozen=True)
class Cloud:
    """A local cloud of this benchmark's own."""

    clone: str
    image: str
    services: run_v2.ServicesClient

    def template(self, name: str) -> run_v2.RevisionTemplate:
        """A revision that answers with its name."""
        container = run_v2.Container(image=self.image, env=[run_v2.EnvVar(name="SAY", value=name)])
        return run_v2.RevisionTemplate(revision=f"bench-{name}", containers=[container])

    def update(self, *paths: str, **values: Any) -> Any:
        """Update the service; gives the operation."""
        request = run_v2.UpdateServiceRequest(service=run_v2.Service(name=NAME, **values), update_mask={"paths": list(paths)})
        return self.services.update_service(request)

    def instance_port(self, engine: docker.DockerClient, revision: str) -> int:
        """The published port of the revision's container: the bare container."""
        (found,) = engine.containers.list(filters={"label": [f"relais.clone={self.clone}", f"relais.revision={revision}"]})
        return int(found.ports["8080/tcp"][0]["HostPort"])


def main() -> int:
    """Measure everything; 0 when every target is met."""
    engine, clone = docker.from_env(timeout=120), f"bench-{secrets.token_hex(3)}"
    figures: list[Figure] = []
    with temporary_folder() as folder:
        with (
            registry_with_quick_image(folder, engine) as (registry, image),
            serving(folder / "cloud", registry, clone) as (_, port),
            grpc.insecure_channel(f"127.0.0.1:{port}") as channel,
        ):
            figures += _traffic(Cloud(clone, image, client(channel)), engine)
        figures += _crowd(crowd.measured(folder / "crowd"))
    return 0 if all(figure.met for figure in figures) else 1


def _traffic(cloud: Cloud, engine: docker.DockerClient) -> list[Figure]:
    service = run_v2.Service(template=cloud.template("a"), invoker_iam_disabled=True)
    made = cloud.services.create_service(parent=PARENT, service=service, service_id="bench").result(polling=SOON)
    cloud.update("template", "traffic", template=cloud.template("b"), traffic=[_pin("a", 50), _pin("b", 50)]).result(polling=SOON)
    port = int(made.uri.rpartition(":")[2])
    return [_told(measure(cloud, engine, port)) for measure in (through_the_split, to_a_new_split, to_a_new_revision)]


def _crowd(found: crowd.Measured) -> list[Figure]:
    many = f"{crowd.SERVICES} imported services"
    return [
        _told(Figure(f"memory for each of {many}", found.idle_kib, "KiB", IDLE_KIB, more="beside the kernel's for its socket")),
        _told(Figure(f"start with {many}", found.start_s, "s", START_S)),
        _told(Figure(f"list of {many}", found.list_s, "s", LIST_S)),
    ]


def _told(figure: Figure) -> Figure:
    print(figure, flush=True)
    return figure


def through_the_split(cloud: Cloud, engine: docker.DockerClient, port: int) -> Figure:
    """Requests a second through a 50/50 split, as a part of those of the bare container; pairs one after the other, the median pair."""
    bare_port = cloud.instance_port(engine, "bench-a")
    for warm in (port, bare_port):
        loaded(warm, 1)
    pairs = [(loaded(bare_port, SECONDS), loaded(port, SECONDS)) for _ in range(PAIRS)]
    for bare, ours in pairs:
        print(f"  bare {_row(bare)}   split {_row(ours)}")
    bare, ours = sorted(pairs, key=lambda pair: pair[1].rate / pair[0].rate)[PAIRS // 2]
    more = f"{ours.rate:.0f} of {bare.rate:.0f} requests/s; p50 {ours.p50_ms:.1f} ms, p99 {ours.p99_ms:.1f} ms"
    if any(load.errors for pair in pairs for load in pair):
        raise SystemExit("some answers were not 200: what was measured is worth nothing; look at the local cloud's log")
    return Figure(f"split against bare container, {CONNECTIONS} connections", ours.rate / bare.rate, "", RATIO, True, more)


def to_a_new_split(cloud: Cloud, _: docker.DockerClient, port: int) -> Figure:
    """From UpdateService to the first request that is served by the new split."""
    cloud.update("traffic", traffic=[_pin("a", 100), _pin("b", 0, "b"), _pin("a", 0, "a")]).result(polling=SOON)
    took = []
    for turn in range(SPLITS):
        now = "ba"[turn % 2]
        began = time.monotonic()
        cloud.update("traffic", traffic=[_pin(now, 100), _pin("a", 0, "a"), _pin("b", 0, "b")])
        _until_served(port, now, began)
        took.append((time.monotonic() - began) * 1000)
    return Figure("UpdateService to the new split served", median(took), "ms", SPLIT_MS, more=f"slowest {max(took):.0f} ms, {SPLITS} tries")


def to_a_new_revision(cloud: Cloud, _: docker.DockerClient, port: int) -> Figure:
    """From UpdateService with a new template to the end of its operation, for an image that is on the machine and listens at once."""
    took = []
    for turn in range(DEPLOYS):
        began = time.monotonic()
        traffic = [run_v2.TrafficTarget(type_=TO_LATEST, percent=100)]
        cloud.update("template", "traffic", template=cloud.template(f"d{turn}"), traffic=traffic).result(polling=SOON)
        took.append(time.monotonic() - began)
        _until_served(port, f"d{turn}", began)
    return Figure("deploy of a cached image", median(took), "s", DEPLOY_S, more=f"slowest {max(took):.2f} s, {DEPLOYS} tries")


def loaded(port: int, seconds: float) -> Load:
    """Load a port from a process of its own."""
    command = [sys.executable, "-m", "benchmarks.load", str(port), str(CONNECTIONS), str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=True)
    return Load(**json.loads(done.stdout))


def _row(load: Load) -> str:
    return f"{load.rate:6.0f}/s p50 {load.p50_ms:5.1f} p99 {load.p99_ms:5.1f} ms"


def _pin(name: str, percent: int, tag: str = "") -> run_v2.TrafficTarget:
    return run_v2.TrafficTarget(type_=BY_NAME, revision=f"bench-{name}", percent=percent, tag=tag)


def _until_served(port: int, name: str, began: float) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=30)
    while True:
        connection.request("GET", "/")
        if connection.getresponse().read() == name.encode():
            return
        if time.monotonic() > began + 30:
            raise SystemExit(f"{name} does not serve 30 s after UpdateService: look at the local cloud's log")


if __name__ == "__main__":
    sys.exit(main())
