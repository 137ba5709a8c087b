"""Faults on request: what shall go wrong, for whom and how often, and whether it was really met.

They are asked for at the admin endpoint, and end when they are spent, deleted, or the local cloud ends.
"""

import asyncio
import fnmatch
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from localcloud import clock, form, methods
from localcloud.form import Unusable
from localcloud.wire import Call, Code, Refusal, caller, sent

_KEPT = 200  # spent faults that are still told
_MET_KEPT = 20
_LONGEST_S = 600.0


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Something that shall go wrong, `times` times (0: until it is deleted)."""

    kind: ClassVar[str]
    times: int = form.field(1, least=0, most=1_000_000)


@dataclass(frozen=True, kw_only=True)
class CallFault(Fault):
    """A fault of API calls: those of one client, of one method, on one resource. What is not said matches everything.

    `client` is a part of the caller's e-mail address or of its `user-agent`; `method` is a name such as `Services/UpdateService` and
    `resource` a name such as `projects/p/locations/r/services/app`, both with `*` for anything.
    """

    client: str = ""
    method: str = "*"
    resource: str = "*"

    def __post_init__(self) -> None:
        if not any(fits(name, self.method) for name in methods.PERMISSIONS):
            remedy = form.nearest(self.method, methods.PERMISSIONS)
            raise Unusable(f"No method here is called '{self.method[:60]}'.", "method", remedy)

    def matches(self, call: Call) -> bool:
        """Whether this call is one of those."""
        return fits(call.method, self.method) and self._of_client(call) and fits(methods.resource(call), self.resource)

    def _of_client(self, call: Call) -> bool:
        said = (caller(call.context), sent(call.context, "user-agent"), sent(call.context, "x-goog-api-client"))
        return any(self.client in each for each in said)


@dataclass(frozen=True, kw_only=True)
class Error(CallFault):
    """The call is refused, and has no effect."""

    kind = "error"
    code: Code
    message: str = "The service is currently unavailable."


@dataclass(frozen=True, kw_only=True)
class Delay(CallFault):
    """The call is carried out that much later."""

    kind = "delay"
    seconds: float = form.field(least=0, most=_LONGEST_S)


@dataclass(frozen=True, kw_only=True)
class DropAnswer(CallFault):
    """The call is carried out, and its answer is lost: the connection breaks, or nothing comes until the caller's deadline."""

    kind = "drop-answer"
    how: Literal["closed", "silence"] = "closed"


@dataclass
class Active:
    """A fault that was asked for, and what it met."""

    id: str
    fault: Fault
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
        self.latest.append((clock.now().isoformat(), what))
        return True

    def told(self) -> dict[str, Any]:
        """The fault as JSON shows it."""
        latest = [{"at": at, "what": what} for at, what in self.latest]
        said = {"id": self.id, "kind": self.fault.kind, **form.plain(self.fault)}
        return {**said, "met": {"count": self.met, "latest": latest}, "spent": self.spent}


class Faults:
    """The faults that were asked for."""

    def __init__(self) -> None:
        self._known: dict[str, Active] = {}

    def ask(self, fault: Fault) -> Active:
        """Have this go wrong from now on."""
        active = Active(f"fault-{secrets.token_hex(4)}", fault)
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

    def delete(self, id: str) -> None:
        """Let a fault be over."""
        del self._known[id]

    def active(self, kind: type[Fault]) -> Iterator[Active]:
        """Those of a kind that are not spent."""
        return (each for each in self.all() if isinstance(each.fault, kind) and not each.spent)

    async def gate(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Stand in front of every handler: a call meets each fault that matches it, in the order in which they were asked for."""
        matching = [each for each in self.active(CallFault) if isinstance(each.fault, CallFault) and each.fault.matches(call)]

        async def through(rest: list[Active]) -> Any:
            return await _meet(rest[0], call, lambda: through(rest[1:])) if rest else await proceed()

        return await through(matching)


async def _meet(active: Active, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
    what = f"{call.method} {methods.resource(call)}".strip()
    match active.fault:
        case Error(code=code, message=message) if active.meet(what):
            raise Refusal(code, message)
        case Delay(seconds=seconds) if active.meet(what):
            await asyncio.sleep(seconds)
        case DropAnswer(how=how) if not active.spent:
            answer = await proceed()  # one that is refused has no effect whose answer could be lost
            if not active.meet(what):
                return answer
            if how == "silence":
                await asyncio.sleep(min(call.context.time_remaining() or _LONGEST_S, _LONGEST_S))
            raise Refusal(Code.UNAVAILABLE, "Socket closed")
    return await proceed()


def fits(text: str, pattern: str) -> bool:
    """Whether a name is the one that a pattern names."""
    return fnmatch.fnmatchcase(text, pattern)


KINDS: dict[str, type[Fault]] = {each.kind: each for each in (Error, Delay, DropAnswer)}


def read(given: Any) -> Fault:
    """The fault that somebody asked for in JSON."""
    where = "POST /faults"
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise Unusable("'kind' is missing.", where, f"Say what shall go wrong: {', '.join(sorted(KINDS))}.")
    kind = KINDS.get(given["kind"])
    if kind is None:
        raise Unusable(f"There is no fault '{given['kind'][:60]}'.", f"{where}: kind", form.nearest(given["kind"], KINDS))
    return form.read(kind, {key: value for key, value in given.items() if key != "kind"}, f"{where} ({kind.kind})")
