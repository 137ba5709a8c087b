"""The instances of revisions: containers that are shared by requests, stopped when idle or retired, started again when needed."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from localcloud import failures
from localcloud.blueprint import Blueprint
from localcloud.pods import Pod, Pods
from localcloud.wire import Refusal

log = logging.getLogger(__name__)

DEPLOYED = (
    "Starting new instance. Reason: DEPLOYMENT_ROLLOUT - Instance started due to traffic shifting between revisions due to deployment, "
    "traffic split adjustment, or deployment health check."
)
REQUESTED = "Starting new instance. Reason: AUTOSCALING - Instance started because there was no existing capacity for current traffic."


@dataclass(eq=False)
class Instance:
    """A pod that serves, and the requests that it has."""

    pod: Pod
    free: asyncio.Semaphore
    requests: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @property
    def id(self) -> str:
        """The instanceId of its log entries."""
        return self.pod.id

    @property
    def port(self) -> int:
        """Where it listens on this machine."""
        return self.pod.port

    @property
    def blueprint(self) -> Blueprint:
        """What it is an instance of."""
        return self.pod.blueprint

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Occupy one of its places for one request; waits for a free one. It must have been counted by `Fleet.instance` before."""
        try:
            async with self.free:
                yield
        finally:
            self.requests -= 1
            self.last_used = time.monotonic()


@dataclass(frozen=True)
class Census:
    """The instances of one revision at a moment: how many have requests, how many have none."""

    blueprint: Blueprint
    active: int
    idle: int
    pods: tuple[Pod, ...]


class Fleet:
    """All instances of this clone, one per revision."""

    def __init__(self, pods: Pods, *, idle_s: float) -> None:
        self._pods, self._idle_s = pods, idle_s
        self._serving: dict[str, Instance] = {}
        self._starting: dict[str, asyncio.Task[Instance]] = {}
        self._wanted: dict[str, Blueprint] = {}  # what the starting ones are made of
        self._kept: set[str] = set()  # revisions with a least number of instances that are reachable
        self._dropped: set[str] = set()  # revisions to be let go as soon as their instance has started
        self._tasks: set[asyncio.Task[Any]] = set()

    # what the data plane and the reconciler ask for

    async def instance(self, blueprint: Blueprint, reason: str = REQUESTED) -> Instance:
        """Give an instance that serves, started if there is none, with one more request counted; a Failure if it does not start."""
        found = self._serving.get(blueprint.key)
        if found is None:
            found = await self.ensure(blueprint, reason)
        found.requests += 1
        return found

    async def ensure(self, blueprint: Blueprint, reason: str) -> Instance:
        """Have an instance of a revision serving; one that an earlier revision of the same name still starts is let go first."""
        key = blueprint.key
        while (other := self._starting.get(key)) is not None and not _alike(self._wanted[key], blueprint):
            await asyncio.wait({other})
            self._dropped.discard(key)
            self.drop([key])
        found = self._serving.get(key)
        if found is not None:
            return found
        task = self._starting.get(key)
        if task is None:
            task = asyncio.create_task(self._start(blueprint, reason))
            self._starting[key], self._wanted[key] = task, blueprint
            task.add_done_callback(lambda _: (self._starting.pop(key, None), self._wanted.pop(key, None)))
        return await asyncio.shield(task)

    async def suspect(self, instance: Instance) -> None:
        """A request to an instance broke: find out whether it is ending, so that the next request does not go there."""
        for _ in range(6):
            if self._serving.get(instance.blueprint.key) is not instance:
                return
            if not await self._pods.alive(instance.pod):
                self._ended(instance.pod)
                return
            await asyncio.sleep(0.05)

    def census(self) -> list[Census]:
        """Count the instances of every revision that has some."""
        return [Census(each.blueprint, int(each.requests > 0), int(not each.requests), (each.pod,)) for each in self._serving.values()]

    def settle(self, reachable: Mapping[str, Blueprint], retired: Iterable[str]) -> None:
        """Start what is reachable now and let go of what is retired; in the background."""
        for key, blueprint in reachable.items():
            self._dropped.discard(key)
            (self._kept.add if blueprint.least else self._kept.discard)(key)
            if key not in self._serving and key not in self._starting:
                self._spawn(self._warm(blueprint))
        self.drop(retired)

    def drop(self, keys: Iterable[str]) -> None:
        """Stop the instances of revisions that are retired or gone, also those that are just starting; in the background."""
        for key in keys:
            self._kept.discard(key)
            starting = self._starting.get(key)
            if starting is not None and key not in self._dropped:
                self._dropped.add(key)
                self._spawn(self._drop_later(key, starting))
            instance = self._serving.pop(key, None)
            if instance is not None:
                self._spawn(self._retire(instance))

    async def _drop_later(self, key: str, starting: "asyncio.Task[Instance]") -> None:
        await asyncio.wait({starting})
        if key in self._dropped:  # nobody wanted it again meanwhile
            self._dropped.discard(key)
            self.drop([key])

    async def adopt(self, blueprints: Mapping[str, Blueprint]) -> None:
        """Take up what runs already."""
        for pod in await self._pods.adopt(blueprints):
            self._found(pod)

    def watch(self, blueprints: Callable[[], Mapping[str, Blueprint]]) -> None:
        """Begin to notice instances that end or idle; `blueprints` are those of all ready revisions."""
        self._pods.watch(blueprints, self._ended, self._found)
        self._spawn(self._reap())

    async def close(self) -> None:
        """Stop watching; containers go on."""
        for task in [*self._tasks, *self._starting.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._starting.values(), return_exceptions=True)
        await self._pods.close()

    # starting

    async def _start(self, blueprint: Blueprint, reason: str) -> Instance:
        pod = await self._pods.start(blueprint, reason)
        instance, before = _instance(pod), self._serving.get(blueprint.key)
        if not pod.ended.is_set():
            self._serving[blueprint.key] = instance
        if before is not None:  # one that ran already was taken up meanwhile
            self._spawn(self._retire(before))
        return instance

    def _found(self, pod: Pod) -> None:
        """Take up a pod that ran already, unless another serves."""
        if pod.blueprint.key in self._serving:
            self._spawn(self._retire(_instance(pod)))
        else:
            self._serving[pod.blueprint.key] = _instance(pod)

    async def _warm(self, blueprint: Blueprint) -> None:
        try:
            await self.ensure(blueprint, DEPLOYED)
        except (failures.Failure, Refusal) as error:
            log.warning("%s could not be started: %s", blueprint.revision, error)

    # ending

    async def _retire(self, instance: Instance) -> None:
        """Let its requests finish, then stop it."""
        deadline = time.monotonic() + instance.blueprint.timeout_s
        while instance.requests and not instance.pod.ended.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        await self._pods.stop(instance.pod)

    def _ended(self, pod: Pod) -> None:
        """A pod serves no more: the next request starts another."""
        found = self._serving.get(pod.blueprint.key)
        if found is not None and found.pod is pod:
            del self._serving[pod.blueprint.key]

    async def _reap(self) -> None:
        """Stop instances that were not asked anything for a while."""
        while True:
            await asyncio.sleep(min(self._idle_s / 4 + 0.05, 5))
            for key, instance in list(self._serving.items()):
                idle = not instance.requests and time.monotonic() - instance.last_used > self._idle_s
                if idle and key not in self._kept:
                    del self._serving[key]
                    self._spawn(self._retire(instance))

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Refusal as refusal:
            log.warning("%s", refusal.message)
        except Exception:
            log.exception("background work failed")


def _instance(pod: Pod) -> Instance:
    return Instance(pod, asyncio.Semaphore(pod.blueprint.concurrency))


def _alike(one: Blueprint, other: Blueprint) -> bool:
    """Whether one container can be an instance of both."""
    return replace(one, least=0) == replace(other, least=0)
