"""The kinds of faults that can be asked for, each with what must be said of it; the endpoint's JSON has the same names."""

import fnmatch
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from localcloud import form
from localcloud.admin import methods
from localcloud.form import Unusable
from localcloud.wire import Call, Code, caller, sent

LONGEST_S = 600.0


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
        here = any(fits(each, self.resource) for each in methods.resources(call))
        return here and fits(call.method, self.method) and self._of_client(call)

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
    seconds: float = form.field(least=0, most=LONGEST_S)


@dataclass(frozen=True, kw_only=True)
class DropAnswer(CallFault):
    """The call is carried out, and its answer is lost: the connection breaks, or nothing comes until the caller's deadline."""

    kind = "drop-answer"
    how: Literal["closed", "silence"] = "closed"


@dataclass(frozen=True, kw_only=True)
class FailOperation(CallFault):
    """The call is accepted, and its operation fails: before it has done anything, or (`effect`) after all is done."""

    kind = "fail-operation"
    code: Code = Code.INTERNAL
    message: str = "An internal error occurred."
    effect: bool = False


@dataclass(frozen=True, kw_only=True)
class StaleRead(CallFault):
    """A read answers what was there before the service's latest write: the service with its old etag, no revision made since."""

    kind = "stale-read"
    method: str = "*/[GL][ei][ts]*"  # GetService, ListServices, GetRevision, ListRevisions


@dataclass(frozen=True, kw_only=True)
class KillContainer(Fault):
    """An instance is ended by SIGKILL: now, or when the service gets its `request`th request from now on."""

    kind = "kill-container"
    service: str
    revision: str = "*"
    request: int = form.field(0, least=0, most=1_000_000)


@dataclass(frozen=True, kw_only=True)
class DiskFull(Fault):
    """Every write to the state, or to the log entries, finds the disk full (SQLite's own error)."""

    kind = "disk-full"
    store: Literal["state", "logs"] = "state"


@dataclass(frozen=True, kw_only=True)
class RegistryDown(Fault):
    """The registry answers the requests of a push or a pull with 503; or (`refused`, until the fault is deleted) nobody listens there."""

    kind = "registry-down"
    how: Literal["unavailable", "refused"] = "unavailable"

    def __post_init__(self) -> None:
        if self.how == "refused" and self.times:
            raise Unusable("Nobody can count what a closed port refuses.", "POST /faults (registry-down): times", 'Send "times": 0.')


@dataclass(frozen=True, kw_only=True)
class Log(Fault):
    """Log entries that match a filter (in Logging's query language) are lost, come `seconds` late, or come twice."""

    kind = "log"
    filter: str = ""
    fate: Literal["lost", "late", "twice"]
    seconds: float = form.field(30, least=0, most=LONGEST_S)


@dataclass(frozen=True, kw_only=True)
class Clock(Fault):
    """The cloud's clock is ahead by so many seconds (behind, if negative), until the fault is deleted."""

    kind = "clock"
    times: int = form.field(0, least=0, most=0)
    seconds: float = form.field(least=-10 * 365 * 86400, most=10 * 365 * 86400)

    def __post_init__(self) -> None:
        if not self.seconds:
            raise Unusable("A clock that is off by 0 s is right.", "seconds", "Say by how many seconds it shall be ahead, or behind.")


def fits(text: str, pattern: str) -> bool:
    """Whether a name is the one that a pattern names."""
    return fnmatch.fnmatchcase(text, pattern)


_ALL = (Error, Delay, DropAnswer, FailOperation, StaleRead, KillContainer, DiskFull, RegistryDown, Log, Clock)
KINDS: dict[str, type[Fault]] = {each.kind: each for each in _ALL}


def read(given: Any) -> Fault:
    """The fault that somebody asked for in JSON."""
    where = "POST /faults"
    if not isinstance(given, dict) or not isinstance(given.get("kind"), str):
        raise Unusable("'kind' is missing.", where, f"Say what shall go wrong: {', '.join(sorted(KINDS))}.")
    kind = KINDS.get(given["kind"])
    if kind is None:
        raise Unusable(f"There is no fault '{given['kind'][:60]}'.", f"{where}: kind", form.nearest(given["kind"], KINDS))
    return form.read(kind, {key: value for key, value in given.items() if key != "kind"}, f"{where} ({kind.kind})")
