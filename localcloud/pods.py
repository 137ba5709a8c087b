"""The containers of instances: created, started, proved to listen, watched, stopped, buried; all that Cloud Run says of it is logged."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from docker.errors import APIError

from localcloud import clock, failures, probes
from localcloud.blueprint import Blueprint, Secrets, environment
from localcloud.engine import Container, Engine, EngineDown
from localcloud.entries import system_entry
from localcloud.logs import LogStore
from localcloud.output import Output
from localcloud.wire import Refusal

T = TypeVar("T")
log = logging.getLogger(__name__)

_GRACE_S = 10
_AGAIN_S = 1.0  # how long to wait for an Engine that is away


@dataclass(eq=False)
class Pod:
    """What one instance runs in. `ended`: it serves no more, by itself or because it was stopped."""

    id: str
    blueprint: Blueprint
    port: int = 0
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    printed: asyncio.Event = field(default_factory=asyncio.Event)  # all that it ever printed is stored
    serves: bool = False  # it was given to the fleet
    stopping: bool = False
    killed: bool = False  # somebody sent it a signal through the Engine


class Pods:
    """All pods of this clone."""

    def __init__(self, engine: Engine, output: Output, store: LogStore, secrets: Secrets, *, startup_s: float) -> None:
        self._engine, self._output, self._store, self._secrets, self._startup_s = engine, output, store, secrets, startup_s
        self._known: dict[str, Pod] = {}  # by container id: serving, starting or stopping
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[Pod], None] = lambda _: None

    async def start(self, blueprint: Blueprint, reason: str) -> Pod:
        """Give a pod that listens; a Failure if it does not start, with its last lines in the log and nothing left behind.

        It may have ended by the time that the caller goes on: `ended` tells.
        """
        variables = environment(blueprint, self._secrets)
        await self._engine.fetch(blueprint.service.project, blueprint.revision, blueprint.image)
        try:
            container = await self._engine.create(blueprint, variables)
        except APIError as error:
            raise failures.refused(blueprint.revision, str(error.explanation or error)) from None
        pod = self._known[container] = Pod(container, blueprint)
        try:
            self._note(pod, "INFO", reason)
            await self._prove(pod)
        except BaseException as error:
            ending = self._spawn(self._give_up(pod))
            if not isinstance(error, (asyncio.CancelledError, EngineDown)):
                await asyncio.wait({ending})
            raise
        pod.serves = True
        return pod

    async def stop(self, pod: Pod, grace_s: int = _GRACE_S) -> None:
        """SIGTERM, SIGKILL after the grace time; returns when its last lines are stored and it is removed.

        It goes on until it is done, also when the caller no longer waits, or the Engine is away for a while.
        """
        pod.stopping = True
        await asyncio.wait({self._spawn(self._retire(pod, grace_s))})

    async def adopt(self, blueprints: Mapping[str, Blueprint], *, only_running: bool = False) -> list[Pod]:
        """Take up the containers that run already, store what the others printed, and remove those and the unknown ones."""
        adopted = []
        for found in await self._engine.containers():
            if found.id in self._known or (only_running and not found.running):
                continue
            blueprint = blueprints.get(f"{found.service}/revisions/{found.revision}")
            if blueprint is None or blueprint.uid != found.uid:
                await self._engine.remove(found.id)
                continue
            pod = self._known[found.id] = Pod(found.id, blueprint, found.ports.get(blueprint.port, 0))
            self._output.follow(pod.id, blueprint, pod.printed)
            if not found.running:
                self._spawn(self._bury(pod, found))
            elif not pod.port:
                self._spawn(self._retire(pod, _GRACE_S))
            else:
                pod.serves = True
                adopted.append(pod)
        return adopted

    def watch(
        self, blueprints: Callable[[], Mapping[str, Blueprint]], ended: Callable[[Pod], None], found: Callable[[Pod], None]
    ) -> None:
        """Begin to notice what ends by itself (`ended`) and what ran already when the Engine came back (`found`).

        `blueprints` gives those of all ready revisions. The calls are made on the loop.
        """
        self._ended = ended
        loop = asyncio.get_running_loop()

        def tell(work: Any, *args: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: self._spawn(work(*args)))

        self._engine.watch(lambda container, action: tell(self._happened, container, action), lambda: tell(self._look, blueprints, found))

    async def alive(self, pod: Pod) -> bool:
        """Whether it runs, as the Engine sees it now."""
        if pod.ended.is_set() or pod.stopping:
            return False
        found = await self._engine.inspect(pod.id)
        return found is not None and found.running

    async def close(self) -> None:
        """Stop watching; containers go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # starting

    async def _prove(self, pod: Pod) -> None:
        """Start the container and wait until it listens; a Failure if it ends, or never does."""
        blueprint, probe = pod.blueprint, pod.blueprint.probe
        failure = failures.start(blueprint.service.project, blueprint.service.service, blueprint.revision, blueprint.port)
        try:
            await self._engine.start(pod.id)
        except APIError as error:  # the command cannot be run at all
            pod.printed.set()
            self._note(pod, "ERROR", f"Application exec likely failed: {error.explanation}")
            raise failure from None
        self._output.follow(pod.id, blueprint, pod.printed)
        found = await self._engine.inspect(pod.id)
        if found is None or not found.running:
            raise failure  # _died writes down why
        pod.port = found.ports[blueprint.port]
        answer = asyncio.create_task(probes.answered(probe, found.ports[probe.port], self._startup_s))
        end = asyncio.create_task(pod.ended.wait())
        try:
            await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
            listens, attempts = answer.result() if answer.done() else (False, 1)
        finally:
            answer.cancel()
            end.cancel()
        words = (probe.kind, attempts, blueprint.container, probe.port)
        if not listens or pod.ended.is_set():
            self._note(pod, "ERROR", failures.probe_failed(*words, default=probe.default))
            raise failure
        self._note(pod, "INFO", failures.probe_succeeded(*words, default=probe.default))

    async def _give_up(self, pod: Pod) -> None:
        """End a container that did not come up."""
        found = await self._patiently(lambda: self._engine.inspect(pod.id))
        if found is not None and not found.running:
            await self._bury(pod, found)
        else:
            await self._retire(pod, grace_s=1)

    # ending

    async def _retire(self, pod: Pod, grace_s: int) -> None:
        pod.stopping = True
        await self._patiently(lambda: self._engine.stop(pod.id, grace_s))
        await self._bury(pod, await self._patiently(lambda: self._engine.inspect(pod.id)))

    async def _happened(self, container: str, action: str) -> None:
        pod = self._known.get(container)
        if pod is None:
            return
        if action == "kill":
            pod.killed = True
        else:
            await self._died(pod, witnessed=True)

    async def _died(self, pod: Pod, *, witnessed: bool) -> None:
        """A container ended: write down why, unless we ended it.

        Not every Engine says that the kernel ended a container for its memory. SIGKILL that nobody sent through the Engine, which was
        watched all the time, is taken for that [approximated].
        """
        if pod.ended.is_set() or pod.stopping:
            return
        found = await self._patiently(lambda: self._engine.inspect(pod.id))
        if found is None:
            await self._bury(pod, None)
        elif not found.running:
            out_of_memory = found.out_of_memory or (witnessed and found.exit_code == 137 and not pod.killed)
            await self._bury(pod, replace(found, out_of_memory=out_of_memory))

    async def _bury(self, pod: Pod, found: Container | None) -> None:
        """Say why it ended, tell the fleet, store its last lines, remove it. `found` is None if somebody else removed it."""
        if self._known.pop(pod.id, None) is None:
            return
        if found is not None and not pod.stopping:
            if found.out_of_memory:
                self._note(pod, "ERROR", failures.out_of_memory(pod.blueprint.memory // 2**20))
            self._note(pod, "WARNING", failures.exited(found.exit_code))
        pod.ended.set()
        if pod.serves and not pod.stopping:
            self._ended(pod)
        try:
            await asyncio.wait_for(pod.printed.wait(), 5)
        except TimeoutError:
            log.warning("the last lines of %s may be missing", pod.blueprint.revision)
        await self._patiently(lambda: self._engine.remove(pod.id))
        self._output.forget(pod.id)

    async def _look(self, blueprints: Callable[[], Mapping[str, Blueprint]], found: Callable[[Pod], None]) -> None:
        """Look after every container: events may have been missed, or the Engine was away when we began."""
        for pod in await self.adopt(blueprints(), only_running=True):
            found(pod)
        for pod in list(self._known.values()):
            if pod.serves:
                await self._died(pod, witnessed=False)

    def _note(self, pod: Pod, severity: str, text: str) -> None:
        """Write an entry of the system log."""
        name = pod.blueprint.service
        stamp = clock.now()
        self._store.write([system_entry(name.project, name.region, name.service, pod.blueprint.revision, pod.id, severity, text, stamp)])

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it as soon as the Engine answers."""
        while True:
            try:
                return await work()
            except EngineDown as down:
                log.info("%s", down.message)
                await asyncio.sleep(_AGAIN_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except Refusal as refusal:
            log.warning("%s", refusal.message)
        except Exception:
            log.exception("background work failed")
