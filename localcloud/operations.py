"""Long-running operations: started here, kept in SQLite, polled and waited for by the clients.

Shapes and rules: google/longrunning/operations.proto.
"""

import asyncio
import logging
import re
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from localcloud.pages import page
from localcloud.state import State
from localcloud.wire import Code, Context, Refusal, pack

log = logging.getLogger(__name__)

_pb: Any = operations_pb2  # generated modules have no types
Work = Coroutine[Any, Any, Any]  # gives the response message (None: as the metadata), or raises Refusal: the operation's error
_LONGEST_WAIT_S = 600.0
_PARENT = re.compile(r"projects/[^/\s]+/locations/[^/\s]+")


@dataclass(frozen=True)
class Fate:
    """An operation that is to fail although it was accepted: before its work has begun, or after it is done."""

    refusal: Refusal
    worked: bool = False


@dataclass(frozen=True)
class Job:
    """An operation's work; how its resource is meanwhile (the metadata); and what to do instead of working, if it is fated to fail."""

    work: Work
    look: Callable[[], Any] | None = None
    give_up: Callable[[Refusal], object] = lambda _: None


class Operations:
    """Starts operations and serves google.longrunning.Operations (and its `WaitOperation`).

    `fate` is asked once for every operation that is accepted, by its method: `CreateService`.
    """

    def __init__(self, state: State, fate: Callable[[str], Fate | None] = lambda _: None) -> None:
        self._state = state
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._jobs: dict[str, Job] = {}
        self.fate = fate

    def start(self, parent: str, metadata_pb: Any, work: Work | Job, *, resume: str = "", method: str = "") -> Any:
        """Run work as an operation of `projects/P/locations/L` and give its Operation, not yet done.

        Inside a transaction of the state it begins when that is written, and never if it is not. `resume` is what the owner of
        the operation needs to run it again when the local cloud restarts; without it, the operation then fails.
        """
        job = work if isinstance(work, Job) else Job(work)
        operation = _pb.Operation(name=f"{parent}/operations/{uuid.uuid4()}", metadata=pack(metadata_pb))
        try:
            self._state.put_operation(operation.name, operation.SerializeToString(), done=False, resume=resume)
        except BaseException:
            job.work.close()
            raise
        self._state.afterwards(lambda: self._run(operation, job, self.fate(method)), job.work.close)
        return operation

    async def settled(self, operation: Any, seconds: float) -> Any:
        """Give the operation as it is when it is done, or after so many seconds."""
        task = self._tasks.get(operation.name)
        if task is not None:
            await asyncio.wait({task}, timeout=seconds)
        return self._get(operation.name)

    def resume(self, again: Callable[[str], Job | None]) -> None:
        """After a restart: run the unfinished operations again, or fail those that nobody can run again."""
        for _, body, resume in self._state.unfinished_operations():
            operation = _pb.Operation.FromString(body)
            job = again(resume) if resume else None
            self._run(operation, job or Job(_interrupted()), None)

    async def GetOperation(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[operations.proto GetOperation]"""
        return self._get(request.name)

    async def WaitOperation(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[operations.proto WaitOperation] Gives the latest state when the operation is done or the time is over."""
        operation = self._get(request.name)
        asked = request.timeout.seconds + request.timeout.nanos / 1e9 if request.HasField("timeout") else _LONGEST_WAIT_S
        return await self.settled(operation, max(0.0, min(asked, _LONGEST_WAIT_S)))

    async def ListOperations(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[operations.proto ListOperations] `name` is `projects/P/locations/L`; only the filter `done=true|false` is known."""
        if not _PARENT.fullmatch(request.name.removesuffix("/operations")):
            raise Refusal(Code.INVALID_ARGUMENT, f"'{request.name}' is not a location: use projects/PROJECT/locations/REGION.")
        wanted = request.filter.replace(" ", "").lower()
        if wanted not in ("", "done=true", "done=false"):
            raise Refusal(Code.INVALID_ARGUMENT, f"The filter '{request.filter}' is not known here: use done=true or done=false.")
        names = self._state.operations(request.name, done=(wanted == "done=true") if wanted else None)
        chosen, token = page(names, request.page_size, request.page_token)
        return _pb.ListOperationsResponse(operations=[self._get(name) for name in chosen], next_page_token=token)

    async def DeleteOperation(self, request: Any, ctx: Context) -> Any:  # noqa: ARG002
        """[operations.proto DeleteOperation] Forgets the operation; what it does goes on."""
        self._get(request.name)
        self._state.delete_operation(request.name)
        empty: Any = empty_pb2
        return empty.Empty()

    async def close(self) -> None:
        """Stop working; unfinished operations stay unfinished in the state, to be resumed."""
        for task in list(self._tasks.values()):
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _get(self, name: str) -> Any:
        body = self._state.operation(name)
        if body is None:
            raise Refusal(Code.NOT_FOUND, f"Operation '{name}' does not exist.")
        operation = _pb.Operation.FromString(body)
        job = self._jobs.get(name)
        if job is not None and job.look is not None and not operation.done:
            _tell(operation, job.look())
        return operation

    def _run(self, operation: Any, job: Job, fate: Fate | None) -> None:
        self._jobs[operation.name] = job
        task = asyncio.create_task(self._work(operation, job, fate), name=operation.name)
        self._tasks[operation.name] = task
        task.add_done_callback(lambda _: (self._tasks.pop(operation.name, None), self._jobs.pop(operation.name, None)))

    async def _work(self, operation: Any, job: Job, fate: Fate | None) -> None:
        try:
            if fate is not None and not fate.worked:
                job.work.close()
                await self._state.insist(lambda: job.give_up(fate.refusal))
                raise fate.refusal
            response = await job.work
            if fate is not None:
                raise fate.refusal
            operation.response.CopyFrom(operation.metadata if response is None else pack(response))
            if operation.metadata.type_url == operation.response.type_url:
                operation.metadata.CopyFrom(operation.response)
        except Refusal as refusal:
            operation.error.code = refusal.code.value[0]
            operation.error.message = refusal.message
        except Exception as error:
            log.exception("operation %s failed", operation.name)
            operation.error.code = grpc.StatusCode.INTERNAL.value[0]
            operation.error.message = f"The local cloud failed: {type(error).__name__}: {error}"
        if operation.HasField("error") and job.look is not None:
            _tell(operation, job.look())
        operation.done = True
        await self._state.insist(lambda: self._write(operation))

    def _write(self, operation: Any) -> None:
        if self._state.operation(operation.name) is not None:  # nobody deleted it meanwhile
            self._state.put_operation(operation.name, operation.SerializeToString(), done=True, resume="")


def _tell(operation: Any, resource: Any) -> None:
    """The metadata is the resource as it is now; as it was, once it is gone."""
    if resource is not None:
        operation.metadata.CopyFrom(pack(resource))


async def _interrupted() -> Any:
    raise Refusal(Code.ABORTED, "The local cloud was stopped while this operation ran. Read the resource, and ask again.")
