"""The faults that befall the cloud's own parts rather than calls: its clock, its disk, its instances."""

import asyncio
import fnmatch
import logging
import sqlite3
from collections.abc import Coroutine
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from docker.errors import APIError

from localcloud import clock
from localcloud.admin import diskfull
from localcloud.admin.faultkinds import Clock, DiskFull, KillContainer, Log, RegistryDown
from localcloud.admin.faults import Active, Faults
from localcloud.artifacts.registryfront import RegistryFront
from localcloud.form import Unusable
from localcloud.instances.blueprint import Blueprint
from localcloud.instances.engine import Engine
from localcloud.logs import logfilter
from localcloud.logs.logstore import LogStore
from localcloud.state import State
from localcloud.wire import Code, Refusal

log = logging.getLogger(__name__)


@dataclass
class _Waiting:
    """A kill that comes with one of a service's next requests."""

    active: Active
    fault: KillContainer
    requests: int = 0
    going: int = 0  # kills that were begun


class Mishaps:
    """Makes those faults real."""

    def __init__(self, faults: Faults, state: State, store: LogStore, engine: Engine, front: RegistryFront) -> None:
        self._state, self._store, self._engine, self._front = state, store, engine, front
        self._waiting: list[_Waiting] = []
        self._logs: list[tuple[Active, logfilter.Filter]] = []
        self._full: set[str] = set()  # the stores whose disk is full
        self._tasks: set[asyncio.Task[None]] = set()
        faults.causes.update({Clock: self._clock, DiskFull: self._disk_full, Log: self._log})
        faults.causes.update({KillContainer: self._kill_container, RegistryDown: self._registry_down})

    async def kill(self, service: str, revision: str = "*", instance: str = "*") -> str:
        """End one running instance (by its id, or any) of a service with SIGKILL, and give its id; Refusal if there is none."""
        for each in await self._engine.containers():
            mine = each.service.rsplit("/", 1)[-1] == service or each.service == service
            if each.running and mine and fnmatch.fnmatchcase(each.revision, revision) and fnmatch.fnmatchcase(each.id, instance):
                await self._engine.kill(each.id)
                return each.id
        raise Refusal(Code.FAILED_PRECONDITION, f"No instance of service '{service}' (revision {revision}) runs.")

    def arrived(self, blueprint: Blueprint, instance: str) -> None:
        """A request has reached an instance."""
        for each in list(self._waiting):
            wanted = each.fault
            if blueprint.service.service != wanted.service or not fnmatch.fnmatchcase(blueprint.revision, wanted.revision):
                continue
            each.requests += 1
            if each.requests % wanted.request == 0:
                self._later(self._kill_waiting(each, instance))

    async def _kill_waiting(self, waiting: _Waiting, instance: str) -> None:
        """Kill, and note it once it is done; one kill too many is not begun."""
        times = waiting.fault.times
        if times and waiting.active.met + waiting.going >= times:
            return
        waiting.going += 1
        try:
            await self._engine.kill(instance)
            waiting.active.meet(f"instance {instance[:12]}")
        except (Refusal, APIError) as error:
            log.warning("instance %s could not be killed, as a fault wants: %s", instance[:12], error)
        finally:
            waiting.going -= 1

    async def _clock(self, active: Active) -> None:
        if clock.offset_s():
            raise Refusal(Code.FAILED_PRECONDITION, "The clock is put off already: delete that fault first.")
        assert isinstance(active.fault, Clock)
        clock.put_off(active.fault.seconds, lambda: active.meet("a time was handed out"))
        active.over = lambda: clock.put_off(0)

    async def _log(self, active: Active) -> None:
        assert isinstance(active.fault, Log)
        try:
            fault = (active, logfilter.compile(active.fault.filter))
        except logfilter.BadFilter as error:
            raise Unusable(str(error), "POST /faults (log): filter", "Write it as Logging's query language has it.") from None
        self._logs.append(fault)
        self._store.fate = self._fate  # only while there is such a fault: asking costs every entry time

        def over() -> None:
            self._logs = [each for each in self._logs if each is not fault]
            if not self._logs:
                self._store.fate = None

        active.over = over

    def _fate(self, entry: Any) -> tuple[float, ...]:
        """When the copies of an entry arrive."""
        for active, chosen in list(self._logs):
            fault = active.fault
            if isinstance(fault, Log) and chosen(entry) and active.meet(f"{entry.log_name} {entry.insert_id}"):
                return {"lost": (), "late": (fault.seconds,), "twice": (0.0, 0.0)}[fault.fate]
        return (0.0,)

    async def _registry_down(self, active: Active) -> None:
        assert isinstance(active.fault, RegistryDown)
        if self._front.down:
            raise Refusal(Code.FAILED_PRECONDITION, "The registry is down already: delete that fault first.")
        if active.fault.how == "refused":
            await self._front.shut()
            active.meet("the port is closed")
            active.over = self._reopen
            return
        self._front.met = active.meet

        def over() -> None:
            self._front.met = None

        active.over = over

    async def _reopen(self) -> None:
        try:
            await self._front.listen()
        except OSError:
            text = f"Another program took the registry's port {self._front.port}: end it, and delete this fault again."
            raise Refusal(Code.FAILED_PRECONDITION, text) from None

    def _later(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _kill_container(self, active: Active) -> None:
        fault = active.fault
        assert isinstance(fault, KillContainer)
        if not fault.request:
            active.meet(f"instance {(await self.kill(fault.service, fault.revision))[:12]}")
            return
        waiting = _Waiting(active, fault)
        self._waiting.append(waiting)
        active.over = lambda: self._waiting.remove(waiting) if waiting in self._waiting else None

    async def _disk_full(self, active: Active) -> None:
        fault = active.fault
        assert isinstance(fault, DiskFull)
        if fault.store in self._full:
            raise Refusal(Code.FAILED_PRECONDITION, f"The disk of the {fault.store} is full already: delete that fault first.")
        loop = asyncio.get_running_loop()
        with self._connection(fault) as connection:
            diskfull.fill(connection, lambda: active.meet(f"a write to the {fault.store}"))
        self._full.add(fault.store)

        def release() -> None:
            self._full.discard(fault.store)
            with self._connection(fault) as connection:
                diskfull.release(connection)

        def over() -> None:  # not inside of the statement that fails
            loop.call_soon_threadsafe(release)

        active.over = over

    def _connection(self, fault: DiskFull) -> AbstractContextManager[sqlite3.Connection]:
        return nullcontext(self._state.connection) if fault.store == "state" else self._store.alone()
