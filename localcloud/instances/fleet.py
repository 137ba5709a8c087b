"""The instances of revisions: how many there are, which one gets a request, when they go (about-instance-autoscaling)."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

from localcloud.instances import failures
from localcloud.instances.blueprint import Blueprint
from localcloud.instances.places import PENDING_S, Full, Instance, Pool
from localcloud.instances.pods import Pod, Pods, Ready, guarded
from localcloud.wire import Refusal

log = logging.getLogger(__name__)

__all__ = ["AUTOSCALING", "DEPLOYED", "KEPT", "Census", "Fleet", "Full", "Instance"]

# https://cloud.google.com/run/docs/logging#instance-scaling-logs, and real entries
_STARTING = "Starting new instance. Reason: "
DEPLOYED = _STARTING + (
    "DEPLOYMENT_ROLLOUT - Instance started due to traffic shifting between revisions due to deployment, traffic split adjustment, "
    "or deployment health check."
)
AUTOSCALING = _STARTING + "AUTOSCALING - Instance started because there was no existing capacity for current traffic."
KEPT = _STARTING + ("MANUAL_OR_CUSTOMER_MIN_INSTANCE - Instance started because of customer-configured min-instances or manual scaling.")

MOST_CONTAINERS = 40
_BAD_ANSWERS = 20  # "20 sequential 5xx responses": formerly documented
_ADOPTION_S = 3.0  # how long the Engine may take to tell what runs before the local cloud serves without it
_ROOM_S = 15.0  # how long a start waits for another container to go


@dataclass(frozen=True)
class Census:
    """The instances of one revision: how many have requests, how many have none."""

    blueprint: Blueprint
    active: int
    idle: int
    pods: tuple[Pod, ...]


class Fleet:
    """All instances of this clone."""

    def __init__(self, pods: Pods, *, idle_s: float, pending_s: float = PENDING_S, most_containers: int = MOST_CONTAINERS) -> None:
        self._pods, self._idle_s, self._pending_s, self._most = pods, idle_s, pending_s, most_containers
        self._pools: dict[str, Pool] = {}  # by revision: only those with something to look after
        self._instances: dict[str, Instance] = {}  # that serve, by pod
        self._retired: set[str] = set()  # revisions that nothing leads to
        self._containers = self._leaving = self._in_want = 0
        self._left = asyncio.Event()  # a container went
        self._tasks: set[asyncio.Task[Any]] = set()

    # what the data plane and the reconciler ask for

    @asynccontextmanager
    async def place(self, blueprint: Blueprint) -> AsyncIterator[Instance]:
        """One request's place in an instance, for as long as it lasts.

        Waits in line if there is none, and has instances started; Full if none came free in time, a Failure if none starts.
        """
        pool = self._pool(blueprint)
        instance = pool.free() if not pool.line else None
        occupied = instance.occupy() if instance is not None else await self._wait(pool)
        try:
            yield occupied
        finally:
            self._leave(occupied)

    async def _wait(self, pool: Pool) -> Instance:
        if not pool.blueprint.most:
            raise Full(pool.blueprint.revision, "its service is scaled to 0 by hand.")
        place = pool.join()
        try:
            self._grow(pool)
            await asyncio.wait({place}, timeout=pool.patience_s(self._pending_s))
        except BaseException:  # the client went away, or its time is over
            found = pool.withdraw(place)
            if found is not None:
                self._leave(found)
            raise
        if not place.done():
            pool.withdraw(place)
            raise Full(pool.blueprint.revision, f"all of its {len(pool.instances)} instances were busy, and no other may be started.")
        return place.result()

    def _leave(self, instance: Instance) -> None:
        instance.leave()
        instance.pool.hand_out()
        self._trim(instance.pool)

    def judged(self, instance: Instance, status: int) -> None:
        """Hear how an instance answered: one that fails again and again is replaced."""
        instance.errors = instance.errors + 1 if status >= 500 else 0
        if instance.errors == _BAD_ANSWERS and instance.id in self._instances:
            log.warning("an instance of %s answered %d requests in a row with 5xx: it ends", instance.pool.blueprint.revision, _BAD_ANSWERS)
            self._let_go(instance)
            self._grow(instance.pool)

    async def suspect(self, instance: Instance) -> None:
        """A request to an instance broke: find out whether it is ending, so that the next request does not go there."""
        for _ in range(6):
            if instance.id not in self._instances:
                return
            if not await self._pods.alive(instance.pod):
                self._ended(instance.pod)
                return
            await asyncio.sleep(0.05)

    async def ensure(self, blueprint: Blueprint, reason: str) -> None:
        """Have an instance of a revision that serves; a Failure if it does not start, Full if this machine has no room for it."""
        pool = self._pool(replace(blueprint, least=0))  # what it keeps is known when it is settled
        pool.retired = False
        if not pool.instances:
            await asyncio.shield(next(iter(pool.starting), None) or self._launch(pool, reason))

    def settle(self, reachable: Mapping[str, Blueprint], retired: Iterable[str]) -> None:
        """Keep what revisions have at the least, start what gets traffic again and let go of what is retired; in the background."""
        for key, blueprint in reachable.items():
            again = key in self._retired
            self._retired.discard(key)
            if key not in self._pools and not again and not blueprint.least:
                continue  # scaled to zero: the next request starts it
            pool = self._pool(blueprint)
            pool.blueprint, pool.retired = blueprint, False
            if again and not pool.instances and not pool.starting and blueprint.most:
                self._launch(pool, DEPLOYED)
            pool.hand_out()
            self._grow(pool)
            self._trim(pool)
        for key in retired:
            self._retired.add(key)
            if key in self._pools:
                self._retire(self._pools[key])

    def drop(self, keys: Iterable[str]) -> None:
        """Let go of revisions that are deleted, also of instances that are just starting; in the background."""
        for key in keys:
            self._retired.discard(key)
            pool = self._pools.pop(key, None)
            if pool is not None:
                self._retire(pool)

    async def adopt(self, ready: Ready) -> None:
        """Take up what runs already; goes on in the background if the Engine takes long: who asks meanwhile waits as for a start."""
        adoption = self._spawn(self._adopt(ready, time.monotonic() + _ADOPTION_S))
        await asyncio.wait({adoption}, timeout=_ADOPTION_S)

    async def _adopt(self, ready: Ready, deadline: float) -> None:
        for pod in await self._pods.adopt(ready):
            if time.monotonic() < deadline:
                self._found(pod)
            else:
                self._found_late(pod)

    def watch(self, ready: Ready) -> None:
        """Begin to notice instances that end or idle; `ready` gives the blueprints of ready revisions."""
        self._pods.watch(ready, self._ended, self._found_late)
        self._spawn(self._reap())

    def census(self) -> list[Census]:
        """The instances that serve now, by revision."""
        return [_counted(pool) for pool in self._pools.values() if pool.instances]

    async def close(self) -> None:
        """Stop watching; containers go on."""
        tasks = [*self._tasks, *(task for pool in self._pools.values() for task in pool.starting)]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._pods.close()

    # starting

    def _pool(self, blueprint: Blueprint) -> Pool:
        """The pool of a revision; what an earlier revision of the same name had is let go."""
        key = blueprint.key
        pool = self._pools.get(key)
        if pool is not None and pool.blueprint.uid != blueprint.uid:
            self.drop([key])
            pool = None
        if pool is None:
            pool = self._pools[key] = Pool(blueprint)
            pool.retired = key in self._retired
        return pool

    def _grow(self, pool: Pool) -> None:
        """Start what the requests in line need and what is kept at the least, unless starts rest after failures."""
        kept = 0 if pool.retired else pool.blueprint.least - len(pool.instances) - len(pool.starting)
        if max(pool.lacking, kept) <= 0 or self._pools.get(pool.blueprint.key) is not pool:
            return
        if pool.rest_s:
            asyncio.get_running_loop().call_later(pool.rest_s + 0.01, self._grow, pool)
            return
        for _ in range(min(kept, self._most - len(pool.starting))):  # more will never be there
            self._launch(pool, KEPT)
        for _ in range(pool.lacking):
            self._launch(pool, AUTOSCALING)

    def _launch(self, pool: Pool, reason: str) -> "asyncio.Task[Instance]":
        task = asyncio.create_task(self._start(pool, reason))
        pool.starting.add(task)
        task.add_done_callback(lambda _: self._launched(pool, task))
        return task

    def _launched(self, pool: Pool, task: "asyncio.Task[Instance]") -> None:
        """A start is over: its instance takes who waits; if it failed and nothing else serves, who waits hears of it."""
        pool.starting.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, (failures.Failure, Refusal)):
            log.warning("%s could not be started: %s", pool.blueprint.revision, error.message)
        elif error is not None:
            log.error("%s could not be started", pool.blueprint.revision, exc_info=error)
        if isinstance(error, Exception):
            pool.strike()
            if not pool.instances and not pool.starting:
                pool.disappoint(error)
        self._grow(pool)
        self._trim(pool)

    async def _start(self, pool: Pool, reason: str) -> Instance:
        await self._room(pool)
        began = time.monotonic()
        try:
            pod = await self._pods.start(pool.blueprint, reason)
        except BaseException:
            self._gone()
            raise
        pool.came_up(time.monotonic() - began)
        instance = Instance(pod, pool)
        if pod.ended.is_set():
            self._gone()
            pool.strike()
        else:
            self._serves(instance)
        return instance

    def _serves(self, instance: Instance) -> None:
        self._instances[instance.id] = instance
        instance.pool.instances.append(instance)
        instance.pool.hand_out()

    def _found(self, pod: Pod) -> None:
        """Take up a pod that ran already; what nobody wants goes again."""
        pool = self._pool(replace(pod.blueprint, least=0))
        self._containers += 1
        self._serves(Instance(pod, pool))
        self._trim(pool)

    def _found_late(self, pod: Pod) -> None:
        """Take up a pod that ran all the time, unless others took its place meanwhile."""
        pool = self._pool(replace(pod.blueprint, least=0))
        if len(pool.instances) + len(pool.starting) < max(pool.blueprint.least, 1):
            self._found(pod)
        else:
            self._containers += 1
            self._leaving += 1
            self._spawn(self._stop(Instance(pod, pool)))

    # the room on this machine

    async def _room(self, pool: Pool) -> None:
        """Wait until the machine has room for one more container; the longest idle one of any revision gives way."""
        deadline = time.monotonic() + _ROOM_S
        self._in_want += 1
        try:
            while self._containers >= self._most:
                if self._leaving < self._in_want:
                    self._give_way()
                rest = deadline - time.monotonic()
                if not self._leaving or rest <= 0:
                    why = f"{self._containers} containers run, and this machine is to have no more (--max-containers {self._most})."
                    raise Full(pool.blueprint.revision, why)
                self._left.clear()
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._left.wait(), min(rest, 1.0))
            self._containers += 1
        finally:
            self._in_want -= 1

    def _give_way(self) -> None:
        spare = [pool.spare[0] for pool in self._pools.values() if pool.spare]
        if spare:
            self._let_go(min(spare, key=lambda each: each.last_used))

    def _gone(self) -> None:
        self._containers -= 1
        self._left.set()

    # ending

    def _retire(self, pool: Pool) -> None:
        """Nothing leads there any more: what has requests finishes them, the rest goes."""
        pool.retired = True
        self._trim(pool)

    def _trim(self, pool: Pool) -> None:
        """Let go of what is idle and retired or beyond the maximum."""
        beyond = len(pool.instances) if pool.retired else len(pool.instances) - pool.blueprint.most
        for instance in pool.spare[: max(beyond, 0)]:
            self._let_go(instance)
        if pool.empty and (pool.retired or not pool.blueprint.least) and self._pools.get(pool.blueprint.key) is pool and not pool.rest_s:
            del self._pools[pool.blueprint.key]

    def _let_go(self, instance: Instance) -> None:
        """Take no more requests, finish those that it has, stop; in the background."""
        self._instances.pop(instance.id, None)
        instance.pool.instances.remove(instance)
        self._leaving += 1
        self._spawn(self._stop(instance))

    async def _stop(self, instance: Instance) -> None:
        try:
            if instance.requests:
                ways = {asyncio.ensure_future(each.wait()) for each in (instance.quiet, instance.pod.ended)}
                await asyncio.wait(ways, timeout=instance.pool.blueprint.timeout_s, return_when=asyncio.FIRST_COMPLETED)
                for each in ways:
                    each.cancel()
            await self._pods.stop(instance.pod)
        finally:
            self._leaving -= 1
            self._gone()

    def _ended(self, pod: Pod) -> None:
        """A pod serves no more: another takes its place where one is kept, or requests wait."""
        instance = self._instances.pop(pod.id, None)
        if instance is None:
            return
        pool = instance.pool
        pool.instances.remove(instance)
        self._gone()
        if instance.young:
            pool.strike()
        self._grow(pool)
        self._trim(pool)

    async def _reap(self) -> None:
        """Stop instances that were not asked anything for a while: one of each revision at a time."""
        while True:
            await asyncio.sleep(min(self._idle_s / 4 + 0.05, 5))
            for pool in list(self._pools.values()):
                idle = pool.spare[:1]
                if idle and time.monotonic() - idle[0].last_used > self._idle_s:
                    self._let_go(idle[0])
                self._grow(pool)
                self._trim(pool)

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[None]":
        task = asyncio.create_task(guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _counted(pool: Pool) -> Census:
    active = sum(1 for each in pool.instances if each.requests)
    return Census(pool.blueprint, active, len(pool.instances) - active, tuple(each.pod for each in pool.instances))
