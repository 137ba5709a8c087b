"""What services were before their latest write, for reads that are to be stale."""

from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from google.cloud import run_v2

from localcloud import naming
from localcloud.admin import methods
from localcloud.naming import ServiceName, short
from localcloud.state import State
from localcloud.wire import Call, Code, Refusal, to_pb

_SERVICES = 500
_WRITES = {"Services/CreateService", "Services/UpdateService", "Services/DeleteService"}


@dataclass(frozen=True)
class Earlier:
    """A service as it was: its message (None: it was not there), and the short names of its revisions."""

    body: bytes | None
    revisions: frozenset[str]


class Before:
    """Remembers each of the services written last as it was before that write. In memory only."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._known: OrderedDict[str, Earlier] = OrderedDict()

    async def kept(self, call: Call, proceed: Callable[[], Awaitable[Any]]) -> Any:
        """Carry a call out; if it writes a service, and is not refused, remember what that was before."""
        if call.method not in _WRITES or call.request.validate_only:
            return await proceed()
        name = methods.resource(call)
        stored = self._state.service(name)
        revisions = self._state.connection.execute("SELECT name FROM revisions WHERE service = ?", (name,))
        before = Earlier(stored.body if stored else None, frozenset(short(each) for (each,) in revisions))
        answer = await proceed()
        self._known[name] = before
        self._known.move_to_end(name)
        while len(self._known) > _SERVICES:
            self._known.popitem(last=False)
        return answer

    def stale(self, call: Call, answer: Any) -> Any:
        """What this read would have answered before the latest write (a Refusal if it was not there yet); None if nothing else.

        `answer` is what it answers now: a Refusal too, as of a service that was deleted; what was below that is not known any more.
        """
        stale = None
        if call.method == "Services/GetService" and call.request.name in self._known:
            body = self._known[call.request.name].body
            stale = run_v2.Service.deserialize(body) if body is not None else naming.service_missing(ServiceName.parse(call.request.name))
        elif isinstance(answer, Refusal):
            return None
        elif call.method == "Services/ListServices":
            stale = run_v2.ListServicesResponse(answer)
            stale.services = [found for each in answer.services if (found := self._service(each)) is not None]
        elif call.method == "Revisions/GetRevision" and not self._there(call.request.name):
            _, project, _, region, *_, revision = call.request.name.split("/")
            text = f"Resource '{revision}' of kind 'REVISION' in region '{region}' in project '{project}' does not exist."
            stale = Refusal(Code.NOT_FOUND, text)
        elif call.method == "Revisions/ListRevisions":
            stale = run_v2.ListRevisionsResponse(answer)
            stale.revisions = [each for each in answer.revisions if self._there(each.name)]
        return None if stale is None or _same(stale, answer) else stale

    def _service(self, now: run_v2.Service) -> run_v2.Service | None:
        earlier = self._known.get(now.name)
        if earlier is None:
            return now
        return run_v2.Service.deserialize(earlier.body) if earlier.body is not None else None

    def _there(self, revision: str) -> bool:
        earlier = self._known.get(revision.split("/revisions/", maxsplit=1)[0])
        return earlier is None or short(revision) in earlier.revisions


def _same(one: Any, other: Any) -> bool:
    refused = [isinstance(each, Refusal) for each in (one, other)]
    return all(refused) or (not any(refused) and bool(to_pb(one) == to_pb(other)))
