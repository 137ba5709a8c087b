"""The containers of instances: created, started in order, proved to answer, watched, stopped, buried."""

import asyncio
import functools
import logging
import os
import time
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any, TypeVar

from docker.errors import APIError, ImageNotFound

from localcloud import clock
from localcloud.instances import failures, probes
from localcloud.instances.blueprint import Blueprint, Part, Probe, Secrets, environment
from localcloud.instances.engine import Container, Engine, EngineDown
from localcloud.instances.output import Output, Source
from localcloud.instances.pod import Member, Pod
from localcloud.instances.volumes import secret_files
from localcloud.logs.entries import system_entry
from localcloud.logs.service import LogStore
from localcloud.state import State
from localcloud.wire import Refusal

__all__ = ["Pod", "Pods", "Ready"]

T = TypeVar("T")
Ready = Callable[[str], Blueprint | None]
log = logging.getLogger(__name__)

_GRACE_S = 10
_AGAIN_S = 1.0  # how long to wait for an Engine that is away
_SCHEMA = "CREATE TABLE IF NOT EXISTS pods (instance TEXT PRIMARY KEY)"  # those that have proved to answer


class Pods:
    """All pods of this clone."""

    def __init__(
        self,
        engine: Engine,
        output: Output,
        state: State,
        store: LogStore,
        secrets: Secrets,
        *,
        startup_s: float,
        started: Callable[[Blueprint, float], None] = lambda *_: None,
    ) -> None:
        self._started = started  # told how many seconds an instance took
        self._engine, self._output, self._store, self._secrets, self.startup_s = engine, output, store, secrets, startup_s
        self._db = state.connection
        self._db.execute(_SCHEMA)
        self._pods: dict[str, Pod] = {}  # by instance: serving, starting or stopping
        self._adopting = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Callable[[Pod], None] = lambda _: None

    async def start(self, blueprint: Blueprint, reason: str) -> Pod:
        """Give a pod that answers; a Failure if it does not start, with its last lines in the log and nothing left behind.

        It may have ended by the time that the caller goes on: `ended` tells.
        """
        pod = Pod(os.urandom(6).hex(), blueprint)
        self._pods[pod.instance] = pod
        began = time.monotonic()
        try:
            await self._create(pod)
            self._note(pod, next(each for each in pod.members if each.part.port), "INFO", reason)
            await self._bring_up(pod)
        except BaseException as error:
            ending = self._let_go(pod, grace_s=1)
            if not isinstance(error, (asyncio.CancelledError, EngineDown)):
                await asyncio.wait({ending})
            raise
        self._db.execute("INSERT OR IGNORE INTO pods (instance) VALUES (?)", (pod.instance,))
        self._serve(pod)
        self._started(blueprint, time.monotonic() - began)
        return pod

    async def stop(self, pod: Pod, grace_s: int = _GRACE_S) -> None:
        """SIGTERM, SIGKILL after the grace time; returns when its last lines are stored and it is removed.

        It goes on until it is done, also when the caller no longer waits, or the Engine is away for a while.
        """
        await asyncio.wait({self._let_go(pod, grace_s)})

    async def adopt(self, ready: Ready) -> list[Pod]:
        """Take up the pods that run already; store what the others printed, and remove those and what belongs to nobody.

        `ready` gives the blueprint of a revision that is ready: it is asked when the Engine has answered.
        """
        async with self._adopting:
            return await self._adopt(ready)

    async def _adopt(self, ready: Ready) -> list[Pod]:
        groups: dict[str, list[Container]] = {}
        for each in await self._engine.containers():
            if each.instance not in self._pods:
                groups.setdefault(each.instance, []).append(each)
        proved = {row[0] for row in self._db.execute("SELECT instance FROM pods")}
        adopted = []
        for instance, found in groups.items():
            blueprint = ready(f"{found[0].service}/revisions/{found[0].revision}")
            parts = {each.name: each for each in blueprint.parts} if blueprint else {}
            if blueprint is None or blueprint.uid != found[0].uid or any(each.part not in parts for each in found):
                await self._engine.remove_all(instance)
                continue
            pod = self._pods[instance] = self._recognise(instance, blueprint, found)
            if instance in proved and len(found) == len(parts) and all(each.running for each in found) and pod.address:
                self._serve(pod)
                adopted.append(pod)
            else:  # one that was still starting may not answer yet: another is started when it is needed
                self._tell_deaths(pod, found)
                self._let_go(pod, _GRACE_S)
        for instance in await self._engine.instances_of_volumes() - set(self._pods):
            await self._engine.remove_all(instance)
        for instance in proved - set(self._pods):
            self._db.execute("DELETE FROM pods WHERE instance = ?", (instance,))
        return adopted

    def _recognise(self, instance: str, blueprint: Blueprint, found: list[Container]) -> Pod:
        of = {each.part: each for each in found}
        pod = Pod(instance, blueprint, [Member(of[part.name].id, part) for part in blueprint.parts if part.name in of])
        for member in pod.members:
            pod.ports |= of[member.part.name].ports
            if of[member.part.name].begun:
                self._follow(pod, member)
        return pod

    def watch(
        self, ready: Ready, ended: Callable[[Pod], None], found: Callable[[Pod], None]
    ) -> None:
        """Begin to notice what ends by itself (`ended`) and what ran already when the Engine came back (`found`).

        `ready` gives the blueprint of a ready revision. The calls are made on the loop.
        """
        self._ended = ended
        loop = asyncio.get_running_loop()

        def tell(work: Any, *args: Any) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(lambda: self._spawn(work(*args)))

        self._engine.watch(lambda container, action: tell(self._happened, container, action), lambda: tell(self._look, ready, found))

    async def alive(self, pod: Pod) -> bool:
        """Whether all of it runs, as the Engine sees it now."""
        if pod.ended.is_set() or pod.stopping:
            return False
        found = await asyncio.gather(*(self._engine.inspect(each.id) for each in pod.members))
        return all(each is not None and each.running for each in found)

    async def close(self) -> None:
        """Stop watching; containers go on."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # starting

    async def _create(self, pod: Pod) -> None:
        """Make all containers; the first one has the network that the others join."""
        blueprint = pod.blueprint
        variables = [environment(blueprint, each, self._secrets) for each in blueprint.parts]
        archives = [secret_files(blueprint, each, self._secrets) for each in blueprint.parts]
        await self._engine.create_volumes(blueprint, pod.instance)
        for part, given, files in zip(blueprint.parts, variables, archives, strict=True):
            network = pod.members[0].id if pod.members else ""
            try:
                container = await self._with_image(blueprint, part, pod.instance, given, network)
                pod.members.append(Member(container, part))
                if files:
                    await self._engine.unpack(container, files)
            except APIError as error:
                raise failures.refused(blueprint.revision, str(error.explanation or error)) from None

    async def _with_image(self, blueprint: Blueprint, part: Part, instance: str, variables: dict[str, str], network: str) -> str:
        try:
            return await self._engine.create(blueprint, part, instance, variables, network)
        except ImageNotFound:
            await self._engine.fetch(blueprint.service.project, blueprint.revision, part.image)
            return await self._engine.create(blueprint, part, instance, variables, network)

    async def _bring_up(self, pod: Pod) -> None:
        """Start each container when those that it depends on have answered; a Failure if one ends, or does not answer in time."""
        proofs: dict[str, asyncio.Task[None]] = {}
        try:
            for member in pod.members:
                await asyncio.gather(*(proofs[name] for name in member.part.after if name in proofs))
                await self._begin(pod, member)
                proofs[member.part.name] = asyncio.create_task(self._prove(pod, member))
            await asyncio.gather(*proofs.values())
        finally:
            for task in proofs.values():
                task.cancel()
            await asyncio.gather(*proofs.values(), return_exceptions=True)
        if pod.ended.is_set():
            raise self._failure(pod, pod.members[-1])

    async def _begin(self, pod: Pod, member: Member) -> None:
        try:
            await self._engine.start(member.id)
        except APIError as error:  # the command cannot be run at all
            for text in failures.not_executed(str(error.explanation)):
                self._note(pod, member, "ERROR", text)
            raise self._failure(pod, member) from None
        self._follow(pod, member)
        found = await self._engine.inspect(member.id)
        if found is None or not found.running:
            await self._died(pod, member, witnessed=True)
        else:
            pod.ports |= found.ports
        if pod.ended.is_set():
            self._note_cancelled(pod, member)
            raise self._failure(pod, member)

    async def _prove(self, pod: Pod, member: Member) -> None:
        """Wait until a container answers its start-up probe, if it has one; a Failure if the pod ends, or it never does."""
        probe, name = member.part.startup, member.part.name
        if probe is None:
            return
        answer = asyncio.create_task(probes.started(probe, pod.ports[probe.port], self.startup_s))
        end = asyncio.create_task(pod.ended.wait())
        try:
            await asyncio.wait({answer, end}, return_when=asyncio.FIRST_COMPLETED)
            outcome = probes.Outcome(probes.CANCELLED, 1) if pod.ended.is_set() else answer.result()
        finally:
            answer.cancel()
            end.cancel()
        if outcome.problem:
            self._note(pod, member, "ERROR", probes.startup_failed(probe, name, outcome))
            raise self._failure(pod, member)
        self._note(pod, member, "INFO", probes.startup_succeeded(probe, name, outcome))

    def _note_cancelled(self, pod: Pod, member: Member) -> None:
        if member.part.startup is not None:
            cancelled = probes.Outcome(probes.CANCELLED, 1)
            self._note(pod, member, "ERROR", probes.startup_failed(member.part.startup, member.part.name, cancelled))

    def _failure(self, pod: Pod, member: Member) -> failures.Failure:
        name, probe = pod.blueprint.service, member.part.startup
        if member.part.port and (probe is None or probe.default):
            return failures.start(name.project, name.service, pod.blueprint.revision, member.part.port)
        return failures.probe_checks(name.project, name.service, pod.blueprint.revision)

    def _follow(self, pod: Pod, member: Member) -> None:
        member.started = True
        self._output.follow(Source(member.id, pod.id, pod.blueprint, member.part), member.printed)

    def _serve(self, pod: Pod) -> None:
        pod.serves = True
        for member in pod.members:
            if member.part.liveness is not None:
                self._spawn(self._keep_alive(pod, member, member.part.liveness))

    # ending

    async def _keep_alive(self, pod: Pod, member: Member, probe: Probe) -> None:
        """Probe a container as long as the pod serves; end the pod when it no longer answers."""
        dead = asyncio.create_task(probes.failed(probe, pod.ports[probe.port]))
        end = asyncio.create_task(pod.ended.wait())
        try:
            await asyncio.wait({dead, end}, return_when=asyncio.FIRST_COMPLETED)
            if pod.ended.is_set() or pod.stopping:
                return
            outcome = dead.result()
        finally:
            dead.cancel()
            end.cancel()
        self._note(pod, member, "ERROR", probes.liveness_failed(probe, member.part.name, outcome))
        self._conclude(pod)

    async def _happened(self, container: str, action: str) -> None:
        for pod in list(self._pods.values()):
            for member in pod.members:
                if member.id == container and action == "kill":
                    member.killed = True
                elif member.id == container and member.started:
                    await self._died(pod, member, witnessed=True)

    async def _died(self, pod: Pod, member: Member, *, witnessed: bool) -> None:
        """A container ended, so its pod does, unless we ended it.

        Not every Engine says that the kernel ended a container for its memory. SIGKILL that nobody sent through the Engine, which was
        watched all the time, is taken for that [approximated].
        """
        if pod.ended.is_set() or pod.stopping:
            return
        found = await self._patiently(lambda: self._engine.inspect(member.id))
        if (found is not None and found.running) or pod.ended.is_set() or pod.stopping:
            return
        if found is not None:
            out_of_memory = found.out_of_memory or (witnessed and found.exit_code == 137 and not member.killed)
            self._tell_deaths(pod, [replace(found, out_of_memory=out_of_memory)])
        self._conclude(pod)

    def _tell_deaths(self, pod: Pod, found: list[Container]) -> None:
        """Write down why containers ended."""
        for each in found:
            member = next(member for member in pod.members if member.id == each.id)
            if each.begun and not each.running:
                if each.out_of_memory:
                    self._note(pod, member, "ERROR", failures.out_of_memory(member.part.memory // 2**20))
                self._note(pod, member, "WARNING", failures.exited(each.exit_code))

    def _conclude(self, pod: Pod) -> None:
        """A pod cannot go on; one that still starts is let go of by `start`."""
        pod.ended.set()
        if pod.serves:
            self._ended(pod)
            self._let_go(pod, _GRACE_S)

    def _let_go(self, pod: Pod, grace_s: int) -> asyncio.Task[None]:
        """Begin to stop and remove a pod, once."""
        pod.stopping = True
        if pod.ending is None:
            pod.ending = self._spawn(self._retire(pod, grace_s))
        return pod.ending

    async def _retire(self, pod: Pod, grace_s: int) -> None:
        await asyncio.gather(*(self._patiently(functools.partial(self._engine.stop, each.id, grace_s)) for each in pod.members))
        pod.ended.set()
        try:
            await asyncio.wait_for(asyncio.gather(*(each.printed.wait() for each in pod.members if each.started)), 5)
        except TimeoutError:
            log.warning("the last lines of %s may be missing", pod.blueprint.revision)
        await self._patiently(lambda: self._engine.remove_all(pod.instance))
        for each in pod.members:
            self._output.forget(each.id)
        self._db.execute("DELETE FROM pods WHERE instance = ?", (pod.instance,))
        self._pods.pop(pod.instance, None)

    async def _look(self, ready: Ready, found: Callable[[Pod], None]) -> None:
        """Look after every container: events may have been missed, or the Engine was away when we began."""
        for pod in await self.adopt(ready):
            found(pod)
        for pod in list(self._pods.values()):
            for member in pod.members:
                if pod.serves:
                    await self._died(pod, member, witnessed=False)

    def _note(self, pod: Pod, member: Member, severity: str, text: str) -> None:
        """Write an entry of the system log."""
        name, stamp = pod.blueprint.service, clock.now()
        entry = system_entry(name.project, name.region, name.service, pod.blueprint.revision, pod.id, severity, text, stamp)
        entry.labels.update(pod.blueprint.labels)
        if len(pod.members) > 1:
            entry.labels["container_name"] = member.part.name
        self._store.write([entry])

    async def _patiently(self, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Do it as soon as the Engine answers."""
        while True:
            try:
                return await work()
            except EngineDown as down:
                log.info("%s", down.message)
                await asyncio.sleep(_AGAIN_S)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


async def guarded(work: Coroutine[Any, Any, Any]) -> None:
    """Do background work to its end; what it meets is in the log, for nobody waits for it."""
    try:
        await work
    except Refusal as refusal:
        log.warning("%s", refusal.message)
    except Exception:
        log.exception("background work failed")
