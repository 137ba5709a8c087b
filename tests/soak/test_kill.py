"""SIGKILL in the middle of writes: on restart the state is the one before or the one after, operations end, services answer."""

import functools
import os
import random
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import httpx
from clouds import PARENT, Cloud, eventually, pinned
from google.api_core.exceptions import GoogleAPICallError, NotFound
from google.cloud import run_v2
from google.iam.v1 import iam_policy_pb2, policy_pb2
from google.longrunning import operations_pb2, operations_pb2_grpc
from soaking import Soak

NAMES = ("one", "two")
INVOKER = "roles/run.invoker"


@dataclass(frozen=True)
class View:
    """What the writes of this test change of a service."""

    template: str
    traffic: tuple[tuple[str, int], ...]
    revisions: frozenset[str]
    members: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Write:
    """One call, and the service that it makes (None: none)."""

    name: str
    call: Callable[[], Any]
    after: View | None


def view(cloud: Cloud, name: str) -> View | None:
    """A service as the official clients see it."""
    try:
        service = cloud.get(name)
    except NotFound:
        return None
    revisions = frozenset(each.name.rsplit("/", 1)[1] for each in cloud.revisions.list_revisions(parent=service.name))
    policy = cloud.services.get_iam_policy(iam_policy_pb2.GetIamPolicyRequest(resource=service.name))
    members = frozenset(member for binding in policy.bindings for member in binding.members)
    return View(service.template.revision, tuple((each.revision, each.percent) for each in service.traffic), revisions, members)


@dataclass
class Writer:
    """Chooses one write after the other."""

    cloud: Cloud
    chance: random.Random
    made: int = 0
    kinds: dict[str, int] = field(default_factory=dict)

    def next(self, name: str, now: View | None) -> Write:
        if now is None:
            return self._named("create", self._create(name))
        ready = [
            each.name.rsplit("/", 1)[1]
            for each in self.cloud.revisions.list_revisions(parent=f"{PARENT}/services/{name}")
            if any(one.type_ == "Ready" and one.state == run_v2.Condition.State.CONDITION_SUCCEEDED for one in each.conditions)
        ]
        idle = sorted(now.revisions - {now.template} - {revision for revision, _ in now.traffic})
        choices: dict[str, Callable[[], Write]] = {
            "deploy": lambda: self._deploy(name, now),
            "shift": lambda: self._shift(name, now, ready),
            "policy": lambda: self._policy(name, now),
            "delete": lambda: self._delete(name),
            **({"delete revision": lambda: self._delete_revision(name, now, self.chance.choice(idle))} if idle else {}),
        }
        kind = self.chance.choice([*choices, "deploy", "shift"])
        return self._named(kind, choices[kind]())

    def _named(self, kind: str, write: Write) -> Write:
        self.kinds[kind] = self.kinds.get(kind, 0) + 1
        return write

    def _revision(self, name: str) -> str:
        self.made += 1
        return f"{name}-r{self.made}"

    def _create(self, name: str) -> Write:
        revision = self._revision(name)
        service = self.cloud.service(name, revision=revision, traffic=[pinned(revision, 100)])
        return Write(
            name,
            lambda: self.cloud.services.create_service(parent=PARENT, service=service, service_id=name),
            View(revision, ((revision, 100),), frozenset({revision})),
        )

    def _update(self, service: run_v2.Service, *paths: str) -> Any:
        request = run_v2.UpdateServiceRequest(service=service, update_mask={"paths": list(paths)})
        return lambda: self.cloud.services.update_service(request)

    def _deploy(self, name: str, now: View) -> Write:
        revision = self._revision(name)
        service = run_v2.Service(name=f"{PARENT}/services/{name}", template=self.cloud.template({}, revision))
        return Write(name, self._update(service, "template"), replace(now, template=revision, revisions=now.revisions | {revision}))

    def _shift(self, name: str, now: View, ready: list[str]) -> Write:
        chosen, share = self.chance.sample(ready, k=min(len(ready), 2)), self.chance.randrange(1, 100)
        split = ((chosen[0], share), (chosen[1], 100 - share)) if len(chosen) == 2 else ((chosen[0], 100),)
        service = run_v2.Service(name=f"{PARENT}/services/{name}", traffic=[pinned(*each) for each in split])
        return Write(name, self._update(service, "traffic"), replace(now, traffic=split))

    def _policy(self, name: str, now: View) -> Write:
        self.made += 1
        members = frozenset({f"user:u{self.made}@example.com"})
        policy = policy_pb2.Policy(bindings=[policy_pb2.Binding(role=INVOKER, members=sorted(members))])
        request = iam_policy_pb2.SetIamPolicyRequest(resource=f"{PARENT}/services/{name}", policy=policy)
        return Write(name, lambda: self.cloud.services.set_iam_policy(request), replace(now, members=members))

    def _delete(self, name: str) -> Write:
        return Write(name, lambda: self.cloud.services.delete_service(name=f"{PARENT}/services/{name}"), None)

    def _delete_revision(self, name: str, now: View, revision: str) -> Write:
        full = f"{PARENT}/services/{name}/revisions/{revision}"
        return Write(name, lambda: self.cloud.revisions.delete_revision(name=full), replace(now, revisions=now.revisions - {revision}))


def killed_while(cloud: Cloud, write: Write, chance: random.Random) -> bool:
    """Make the call and kill the local cloud meanwhile; whether the call was acknowledged before."""
    acknowledged = threading.Event()

    def call() -> None:
        try:
            write.call()
            acknowledged.set()
        except GoogleAPICallError:
            assert cloud.process is not None
            assert cloud.process.poll() is not None or killed.is_set(), "the write was refused"

    killed = threading.Event()
    thread = threading.Thread(target=call)
    aimed, moment = chance.random() < 0.5, chance.choice([0.005, 0.01, 0.3]) * chance.random()
    writes = written(cloud)
    thread.start()
    if aimed:  # right after the n-th write that is seen
        for _ in range(chance.randint(1, 4)):
            deadline = time.monotonic() + 0.4
            while (now := written(cloud)) == writes and time.monotonic() < deadline:
                pass
            writes = now
    else:
        time.sleep(moment)
    killed.set()
    assert cloud.process is not None
    cloud.process.send_signal(signal.SIGKILL)
    thread.join(20)
    assert not thread.is_alive()
    cloud.stop(signal.SIGKILL)
    return acknowledged.is_set()


def written(cloud: Cloud) -> tuple[int, int]:
    """Changes with every write to the state."""
    found = os.stat(cloud.state / "cloud.sqlite-wal")
    return found.st_mtime_ns, found.st_size


def operations_ended(cloud: Cloud) -> bool:
    request = operations_pb2.ListOperationsRequest(name=PARENT, filter="done=false")
    return not operations_pb2_grpc.OperationsStub(cloud.channel).ListOperations(request).operations


def no_strays(cloud: Cloud, views: dict[str, View | None]) -> bool:
    """Whether no container is left that nobody needs: of a revision that is gone, or has no traffic."""
    needed = {revision for each in views.values() if each for revision, percent in each.traffic if percent}
    return {each.labels["relais.revision"] for each in cloud.containers()} <= needed


def test_killed_at_any_moment_it_comes_back_with_the_state_before_or_after(own_cloud: Callable[..., Cloud], soak: Soak) -> None:
    cloud, chance = own_cloud(), soak.random()
    writer, acknowledged, addresses = Writer(cloud, chance), 0, {}
    views: dict[str, View | None] = dict.fromkeys(NAMES)
    for name in NAMES:
        writer.next(name, None).call().result()
        views[name] = view(cloud, name)
    for turn in range(soak.rounds(sample=6, whole=100)):
        name = chance.choice(NAMES)
        before, write = views[name], writer.next(name, views[name])
        told = killed_while(cloud, write, chance)
        acknowledged += told
        cloud.start()
        views = {each: view(cloud, each) for each in NAMES}
        where = f"round {turn}, seed {soak.seed}: {write}, acknowledged: {told}"
        assert views[name] == write.after or (not told and views[name] == before), f"{where}: {views[name]} was {before}"
        eventually(lambda: operations_ended(cloud))
        for each, now in views.items():
            if now is None:
                addresses.pop(each, None)
                continue
            service = cloud.get(each)
            assert not service.reconciling, where
            assert addresses.setdefault(each, service.uri) == service.uri, where
            answer = httpx.get(service.uri, timeout=20)
            assert (answer.status_code, answer.text in {revision for revision, _ in now.traffic}) == (200, True), f"{where}: {answer.text}"
        eventually(functools.partial(no_strays, cloud, views))
    print(f"{writer.kinds}, {acknowledged} acknowledged")
