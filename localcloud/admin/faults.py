"""Faults on request: what goes wrong now, for whom and how often, and whether it was really met.

They are asked for at the admin endpoint, and end when they are spent, deleted, or the local cloud ends.
"""

import asyncio
import datetime
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from localcloud import form
from localcloud.admin import methods
from localcloud.admin.faultkinds import LONGEST_S, CallFault, Delay, DropAnswer, Error, FailOperation, Fault, StaleRead
from localcloud.admin.stale import Before
from localcloud.operations import Fate
from localcloud.wire import Call, Code, Refusal

_KEPT = 200  # spent faults that are still told
_MET_KEPT = 20


@dataclass
class Active:
    """A fault that was asked for, and what it met."""

    id: str
    fault: Fault
    over: Callable[[], Awaitable[None] | None] = lambda: None  # what ends it, when it is spent or deleted
    met: int = 0
    latest: deque[tuple[str, str]] = field(default_factory=lambda: deque(maxlen=_MET_KEPT))

    @property
    def spent(self) -> bool:
        """Whether it has met as much as it should."""
        return bool(self.fault.times) and self.met >= self.fault.times

    def meet(self, what: str) -> bool:
        """Note that it was met; False if it is spent, and this must go well."""
        if self.spent:
            return False
        self.met += 1
        self.latest.append((datetime.datetime.now(datetime.UTC).isoformat(), what))  # the machine's time: the cloud's may be off
        if self.spent:
            self.over()
        return True

    def told(self) -> dict[str, Any]:
        """The fault as JSON shows it."""
        latest = [{"at": at, "what": what} for at, what in self.latest]
        said = {"id": self.id, "kind": self.fault.kind, **form.plain(self.fault)}
        return {**said, "met": {"count": self.met, "latest": latest}, "spent": self.spent}


Cause = Callable[[Active], Awaitable[None]]
"""Makes a fault of the world real when it is asked for, and sets what ends it; Refusal if it cannot be."""


class Faults:
    """The faults that were asked for. `causes` has those that are more than what happens to calls, by their class."""

    def __init__(self, before: Before) -> None:
        self._known: dict[str, Active] = {}
        self._before = before
        self._doomed: ContextVar[Active | None] = ContextVar("doomed", default=None)
        self.causes: dict[type[Fault], Cause] = {}

    async def ask(self, fault: Fault) -> Active:
        """Have this go wrong from now on."""
        active = Active(f"fault-{secrets.token_hex(4)}", fault)
        cause = self.causes.get(type(fault))
        if cause is not None:
            await cause(active)
        self._known[active.id] = active
        for old in [each.id for each in self._known.values() if each.spent][:-_KEPT]:
            del self._known[old]
        return active

    def all(self) -> list[Active]:
        """Every fault that was asked for and not deleted, oldest first."""
        return list(self._known.values())

    def find(self, id: str) -> Active | None:
        """One of them."""
        return self._known.get(id)

    async def delete(self, id: str) -> None:
        """Let a fault be over; one that cannot be ended is a Refusal, and stays."""
        ending = self._known[id].over()
        if ending is not None:
            await ending
        self._known.pop(id, None)

    def active(self, kind: type[Fault]) -> Iterator[Active]:
        """Those of a kind that are not spent."""
        return (each for each in self.all() if isinstance(each.fault, kind) and not each.spent)

    async def gate(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Stand in front of every handler: a call meets each fault that matches it, in the order in which they were asked for."""
        matching = [each for each in self.active(CallFault) if isinstance(each.fault, CallFault) and each.fault.matches(call)]

        async def through(rest: list[Active]) -> Any:
            return await self._meet(rest[0], call, lambda: through(rest[1:])) if rest else await self._before.kept(call, proceed)

        return await through(matching)

    async def _meet(self, active: Active, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        what = f"{call.method} {methods.resource(call)}".strip()
        match active.fault:
            case Error(code=code, message=message) if active.meet(what):
                raise Refusal(code, message)
            case Delay(seconds=seconds) if active.meet(what):
                await asyncio.sleep(seconds)
            case FailOperation() if not active.spent:
                self._doomed.set(active)  # read by `fate` when this call's operation is accepted
            case StaleRead() if not active.spent:
                now = await _outcome(proceed)
                stale = self._before.stale(call, now)
                told = stale if stale is not None and active.meet(what) else now
                if isinstance(told, Refusal):
                    raise told
                return told
            case DropAnswer(how=how) if not active.spent:
                answer = await proceed()  # one that is refused has no effect whose answer could be lost
                if not active.meet(what):
                    return answer
                if how == "silence":
                    await asyncio.sleep(min((call.context.time_remaining() or LONGEST_S) + 1, LONGEST_S))  # the caller gives up first
                raise Refusal(Code.UNAVAILABLE, "Socket closed")
        return await proceed()

    def fate(self, method: str) -> Fate | None:
        """How the operation that the present call starts is to end, if not well."""
        active = self._doomed.get()
        if active is None or not isinstance(active.fault, FailOperation) or not active.meet(f"the operation of {method}".strip()):
            return None
        return Fate(Refusal(active.fault.code, active.fault.message), worked=active.fault.effect)


async def _outcome(proceed: Callable[[], Awaitable[Any]]) -> Any:
    """The answer, or the Refusal, that a call gets."""
    try:
        return await proceed()
    except Refusal as refusal:
        return refusal
