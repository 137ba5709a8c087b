"""The instances of revisions: containers that are started, proved to listen, shared by requests, stopped when idle or retired."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from docker.errors import APIError

from localcloud import clock, failures, probes
from localcloud.blueprint import Blueprint, environment
from localcloud.engine import Container, Engine
from localcloud.entries import system_entry
from localcloud.logs import LogStore
from localcloud.output import Output
from localcloud.wire import Refusal

log = logging.getLogger(__name__)

DEPLOYED = (
    "Starting new instance. Reason: DEPLOYMENT_ROLLOUT - Instance started due to traffic shifting between revisions due to deployment, "
    "traffic split adjustment, or deployment health check."
)
REQUESTED = "Starting new instance. Reason: AUTOSCALING - Instance started because there was no existing capacity for current traffic."
_GRACE_S = 10


@dataclass
class Instance:
    """A container that serves. `ended`: it has died or is gone. `printed`: all that it ever printed is stored."""

    id: str
    blueprint: Blueprint
    port: int
    free: asyncio.Semaphore
    printed: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: bool = False
    killed: bool = False  # somebody sent it a signal through the Engine
    requests: int = 0
    last_used: float = field(default_factory=time.monotonic)

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Occupy one of its places for one request; waits for a free one. It must have been counted by `Fleet.instance` before."""
        try:
            async with self.free:
                yield
        finally:
            self.requests -= 1
            self.last_used = time.monotonic()


class Fleet:
    """All instances of this clone, one per revision."""

    def __init__(self, engine: Engine, output: Output, store: LogStore, secrets: Path, *, startup_s: float, idle_s: float) -> None:
        self._engine, self._output, self._store, self._secrets = engine, output, store, secrets
        self._startup_s, self._idle_s = startup_s, idle_s
        self._serving: dict[str, Instance] = {}
        self._starting: dict[str, asyncio.Task[Instance]] = {}
        self._wanted: dict[str, Blueprint] = {}  # what the starting ones are made of
        self._known: dict[str, Instance] = {}  # by container id: serving, starting or stopping
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
            found = await self._engine.inspect(instance.id)
            if found is None or not found.running:
                self._serving.pop(instance.blueprint.key, None)
                return
            await asyncio.sleep(0.05)

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

    async def adopt(self, blueprints: Mapping[str, Blueprint], *, only_running: bool = False) -> None:
        """Take up the containers that run already, store what the others printed, and remove those."""
        for found in await self._engine.containers():
            if found.id in self._known or (only_running and not found.running):
                continue
            blueprint = blueprints.get(f"{found.service}/revisions/{found.revision}")
            if blueprint is None:
                await self._engine.remove(found.id)
                continue
            instance = self._register(found.id, blueprint, found.ports.get(blueprint.port, 0))
            if found.running and instance.port and blueprint.key not in self._serving:
                self._serving[blueprint.key] = instance
            elif found.running:
                self._spawn(self._retire(instance))
            else:
                self._spawn(self._bury(instance, found))

    def watch(self, blueprints: Callable[[], Mapping[str, Blueprint]]) -> None:
        """Begin to notice containers that end, and instances that idle; `blueprints` are those of all ready revisions."""
        loop = asyncio.get_running_loop()

        def tell(work: Any, *args: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: self._spawn(work(*args)))

        self._engine.watch(lambda container, action: tell(self._happened, container, action), lambda: tell(self._look, blueprints))
        self._spawn(self._reap())

    async def close(self) -> None:
        """Stop watching; containers go on."""
        for task in [*self._tasks, *self._starting.values()]:
            task.cancel()
        await asyncio.gather(*self._tasks, *self._starting.values(), return_exceptions=True)

    def note(self, blueprint: Blueprint, container: str, severity: str, text: str) -> None:
        """Write an entry of the system log."""
        name = blueprint.service
        stamp = clock.now()
        self._store.write([system_entry(name.project, name.region, name.service, blueprint.revision, container, severity, text, stamp)])

    # starting

    async def _start(self, blueprint: Blueprint, reason: str) -> Instance:
        variables = environment(blueprint, self._secrets)
        await self._engine.fetch(blueprint.service.project, blueprint.revision, blueprint.image)
        try:
            container = await self._engine.create(blueprint, variables)
        except APIError as error:
            raise failures.refused(blueprint.revision, str(error.explanation or error)) from None
        instance = self._register(container, blueprint, 0, follow=False)
        try:
            self.note(blueprint, container, "INFO", reason)
            await self._prove(instance)
        except BaseException as error:
            ending = self._give_up(instance)
            if isinstance(error, asyncio.CancelledError):
                self._spawn(ending)
            else:
                await ending  # so that its last lines are in the log when the failure is told
            raise
        before = self._serving.get(blueprint.key)
        self._serving[blueprint.key] = instance
        if before is not None:  # one that ran already was taken up meanwhile
            self._spawn(self._retire(before))
        return instance

    async def _prove(self, instance: Instance) -> None:
        """Start the container and wait until it listens; a Failure if it ends, or never does."""
        blueprint, probe = instance.blueprint, instance.blueprint.probe
        failure = failures.start(blueprint.service.project, blueprint.service.service, blueprint.revision, blueprint.port)
        try:
            await self._engine.start(instance.id)
        except APIError as error:  # the command cannot be run at all
            instance.printed.set()
            self.note(blueprint, instance.id, "ERROR", f"Application exec likely failed: {error.explanation}")
            raise failure from None
        self._output.follow(instance.id, blueprint, instance.printed)
        found = await self._engine.inspect(instance.id)
        if found is None or not found.running:
            raise failure  # _died writes down why
        instance.port = found.ports[blueprint.port]
        answer = asyncio.create_task(probes.answered(probe, found.ports[probe.port], self._startup_s))
        end = asyncio.create_task(instance.ended.wait())
        try:
            await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
            listens, attempts = answer.result() if answer.done() else (False, 1)
        finally:
            answer.cancel()
            end.cancel()
        words = (probe.kind, attempts, blueprint.container, probe.port)
        if not listens or instance.ended.is_set():
            self.note(blueprint, instance.id, "ERROR", failures.probe_failed(*words, default=probe.default))
            raise failure
        self.note(blueprint, instance.id, "INFO", failures.probe_succeeded(*words, default=probe.default))

    def _register(self, container: str, blueprint: Blueprint, port: int, *, follow: bool = True) -> Instance:
        instance = Instance(container, blueprint, port, asyncio.Semaphore(blueprint.concurrency))
        self._known[container] = instance
        if follow:
            self._output.follow(container, blueprint, instance.printed)
        return instance

    async def _warm(self, blueprint: Blueprint) -> None:
        try:
            await self.ensure(blueprint, DEPLOYED)
        except (failures.Failure, Refusal) as error:
            log.warning("%s could not be started: %s", blueprint.revision, error)

    # ending

    async def _give_up(self, instance: Instance) -> None:
        """End a container that did not come up."""
        found = await self._engine.inspect(instance.id)
        if found is not None and not found.running:
            await self._bury(instance, found)
        else:
            await self._retire(instance, grace_s=1)

    async def _retire(self, instance: Instance, grace_s: int = _GRACE_S) -> None:
        """Let its requests finish, then SIGTERM, and SIGKILL after the grace time."""
        deadline = time.monotonic() + instance.blueprint.timeout_s
        while instance.requests and not instance.ended.is_set() and time.monotonic() < deadline:
            await asyncio.sleep(0.1)
        instance.stopping = True
        await self._engine.stop(instance.id, grace_s)
        found = await self._engine.inspect(instance.id)
        if found is not None:
            await self._bury(instance, found)

    async def _happened(self, container: str, action: str) -> None:
        instance = self._known.get(container)
        if instance is None:
            return
        if action == "kill":
            instance.killed = True
        else:
            await self._died(container, witnessed=True)

    async def _died(self, container: str, *, witnessed: bool) -> None:
        """A container ended: write down why, unless we ended it; the next request starts another.

        Not every Engine says that the kernel ended a container for its memory. SIGKILL that nobody sent through the Engine, which was
        watched all the time, is taken for that [approximated].
        """
        instance = self._known.get(container)
        if instance is None or instance.ended.is_set():
            return
        if self._serving.get(instance.blueprint.key) is instance:
            del self._serving[instance.blueprint.key]
        found = await self._engine.inspect(container)
        if found is not None and not found.running and not instance.stopping:
            out_of_memory = found.out_of_memory or (witnessed and found.exit_code == 137 and not instance.killed)
            await self._bury(instance, replace(found, out_of_memory=out_of_memory))

    async def _bury(self, instance: Instance, found: Container) -> None:
        if self._known.pop(instance.id, None) is None:
            return
        if not instance.stopping:
            blueprint = instance.blueprint
            if found.out_of_memory:
                self.note(blueprint, instance.id, "ERROR", failures.out_of_memory(blueprint.memory // 2**20))
            self.note(blueprint, instance.id, "WARNING", failures.exited(found.exit_code))
        instance.ended.set()
        try:
            await asyncio.wait_for(instance.printed.wait(), 5)
        except TimeoutError:
            log.warning("the last lines of %s may be missing", instance.blueprint.revision)
        await self._engine.remove(instance.id)
        self._output.forget(instance.id)

    async def _look(self, blueprints: Callable[[], Mapping[str, Blueprint]]) -> None:
        """Look after every container: events may have been missed, or the Engine was away when we began."""
        await self.adopt(blueprints(), only_running=True)
        for instance in list(self._known.values()):
            found = await self._engine.inspect(instance.id)
            if found is None:
                self._known.pop(instance.id, None)
                if self._serving.get(instance.blueprint.key) is instance:
                    del self._serving[instance.blueprint.key]
                instance.ended.set()
            elif not found.running and instance.port:
                await self._died(instance.id, witnessed=False)

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


def _alike(one: Blueprint, other: Blueprint) -> bool:
    """Whether one container can be an instance of both."""
    return replace(one, least=0) == replace(other, least=0)
