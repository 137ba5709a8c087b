"""Faults of every kind under deployments, changes of traffic, reads and requests: each is met, and afterwards all is as it should be."""

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
from clouds import PARENT, Cloud, eventually, pinned
from google.api_core.exceptions import GoogleAPICallError
from google.cloud import run_v2
from google.longrunning import operations_pb2, operations_pb2_grpc
from soaking import Soak

from localcloud.admin.faultkinds import KINDS

NAME = "struck"
UPDATE = {"method": "Services/UpdateService"}
GOOD = run_v2.Condition.State.CONDITION_SUCCEEDED
REFUSED = (GoogleAPICallError, httpx.HTTPError)


@dataclass
class Stream:
    """What clients do to one service, whatever happens to it."""

    cloud: Cloud
    chance: random.Random
    made: int = 0
    kinds: Counter[str] = field(default_factory=Counter)

    def deploy(self) -> None:
        self.made += 1
        self.cloud.update(self.cloud.named(NAME, revision=f"{NAME}-{self.made}", env={"N": str(self.made)}))

    def shift(self) -> None:
        percent = self.chance.randint(1, 99)
        older, newer = self.ready()[-2:]
        service = run_v2.Service(name=f"{PARENT}/services/{NAME}", traffic=[pinned(older, 100 - percent), pinned(newer, percent)])
        self.cloud.update(service, "traffic")

    def ready(self) -> list[str]:
        listed = self.cloud.revisions.list_revisions(parent=f"{PARENT}/services/{NAME}")
        ready = [each for each in listed if any(one.type_ == "Ready" and one.state == GOOD for one in each.conditions)]
        return [each.name.rsplit("/", 1)[1] for each in sorted(ready, key=lambda each: each.create_time)]

    def request(self) -> int:
        return httpx.get(self.cloud.get(NAME).uri, trust_env=False, timeout=20).status_code

    def all(self, first: Callable[[], Any]) -> None:
        """One thing, and then reads, requests and a change of traffic; an error is what a client may see of a fault."""
        for each in (first, self.shift, self.request, lambda: self.cloud.get(NAME)):
            with contextlib.suppress(*REFUSED):
                each()

    def strike(self, kind: str) -> None:
        """Ask for a fault, go on until it is met, and let it be over."""
        change = self.chance.choice([self.deploy, self.shift])
        asked: dict[str, tuple[dict[str, Any], Callable[[], Any]]] = {
            "error": (UPDATE | {"code": self.chance.choice(["UNAVAILABLE", "ABORTED", "INTERNAL", "RESOURCE_EXHAUSTED"])}, change),
            "delay": ({"seconds": 0.1}, change),
            "drop-answer": (UPDATE, change),
            "fail-operation": (UPDATE | {"effect": self.chance.random() < 0.5}, change),
            "stale-read": ({"method": "Services/GetService"}, lambda: self.cloud.get(NAME)),
            "kill-container": ({"service": NAME, "request": 1}, self.request),
            "disk-full": ({"store": self.chance.choice(["state", "logs"])}, self.request if self.chance.random() < 0.5 else change),
            "registry-down": ({"how": "refused", "times": 0}, change),
            "log": ({"fate": self.chance.choice(["lost", "late", "twice"]), "seconds": 0.2}, self.request),
            "clock": ({"seconds": self.chance.choice([-3600, 3600])}, change),
        }
        values, first = asked[kind]
        fault = self.cloud.fault(kind, **values)
        self.all(first)
        eventually(lambda: self.cloud.met(fault))
        self.cloud.ask("DELETE", "/faults")
        self.kinds[kind] += 1


def settled(cloud: Cloud) -> run_v2.Service:
    """The service, once nothing is under way."""

    def ended() -> run_v2.Service | None:
        stub = operations_pb2_grpc.OperationsStub(cloud.channel)
        under_way = stub.ListOperations(operations_pb2.ListOperationsRequest(name=PARENT, filter="done=false")).operations
        service = cloud.get(NAME)
        return None if under_way or service.reconciling else service

    return eventually(ended, 30)


def consistent(cloud: Cloud) -> None:
    """The service serves what it says, is the same to every reader, and has no container of a revision that is not there."""
    service = settled(cloud)
    assert sum(each.percent for each in service.traffic) == 100
    assert next(iter(cloud.services.list_services(parent=PARENT))).etag == service.etag
    assert eventually(lambda: httpx.get(service.uri, trust_env=False, timeout=20).status_code == 200)
    known = {each.name.rsplit("/", 1)[1] for each in cloud.revisions.list_revisions(parent=service.name)}
    assert {each.labels["relais.revision"] for each in cloud.containers()} <= known
    told = cloud.ask("GET", "/state")
    assert (told["operations"], told["faults"], told["trouble"]) == ([], [], "")


def test_after_every_kind_of_fault_the_service_is_consistent_and_answers(cloud: Cloud, soak: Soak) -> None:
    stream = Stream(cloud, soak.random())
    cloud.create(NAME, revision=f"{NAME}-0")
    stream.deploy()
    kinds = sorted(KINDS)
    for number in range(soak.rounds(10, 150)):
        if number % len(kinds) == 0:
            stream.chance.shuffle(kinds)
        stream.strike(kinds[number % len(kinds)])
        consistent(cloud)
    stream.deploy()  # what a fault failed is mended by the next good change
    stream.shift()
    service = settled(cloud)
    assert service.terminal_condition.state == GOOD
    served = [(each.revision, each.percent) for each in service.traffic_statuses]
    assert served == [(each.revision, each.percent) for each in service.traffic]
    assert set(stream.kinds) == set(kinds)
