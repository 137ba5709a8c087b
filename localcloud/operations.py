"""Long-running operations: started here, kept in SQLite, polled and waited for by the clients.

Shapes and rules: google/longrunning/operations.proto.
"""

import asyncio
import logging
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
from google.longrunning import operations_pb2
from google.protobuf import empty_pb2

from localcloud.pages import page
from localcloud.state import State
from localcloud.wire import Code, Context, Refusal, pack

log = logging.getLogger(__name__)

_pb: Any = operations_pb2  # generated modules have no types
Work = Coroutine[Any, Any, Any]  # gives the response message, or raises Refusal: the operation's error
_LONGEST_WAIT_S = 600.0


class Operations:
    """Starts operations and serves google.longrunning.Operations (and its `WaitOperation`)."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self, parent: str, metadata_pb: Any, coroutine: Work, *, resume: str = "") -> Any:
        """Run a coroutine as an operation of `projects/P/locations/L` and give its Operation, not yet done.

        `resume` is what the owner of the operation needs to run it again when the local cloud restarts; without it, the
        operation then fails.
        """
        operation = _pb.Operation(name=f"{parent}/operations/{uuid.uuid4()}", metadata=pack(metadata_pb))
        self._state.put_operation(operation.name, operation.SerializeToString(), done=False, resume=resume)
        self._run(operation, coroutine)
        return operation

    async def settled(self, operation: Any, seconds: float) -> Any:
        """Give the operation as it is when it is done, or after so many seconds."""
        task = self._tasks.get(operation.name)
        if task is not None:
            await asyncio.wait({task}, timeout=seconds)
        return self._get(operation.name)

    def resume(self, again: Callable[[str], Work | None]) -> None:
        """After a restart: run the unfinished operations again, or fail those that nobody can run again."""
        for _, body, resume in self._state.unfinished_operations():
            operation = _pb.Operation.FromString(body)
            work = again(resume) if resume else None
            if work is not None:
                self._run(operation, work)
                continue
            operation.error.code = Code.ABORTED.value[0]
            operation.error.message = "The local cloud was stopped while this operation ran. Read the resource, and ask again."
            self._finish(operation)

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
        wanted = request.filter.replace(" ", "").lower()
        if wanted not in ("", "done=true", "done=false"):
            raise Refusal(Code.INVALID_ARGUMENT, f"The filter '{request.filter}' is not known here: use done=true or done=false.")
        found = [_pb.Operation.FromString(body) for body in self._state.operations(request.name)]
        if wanted:
            found = [operation for operation in found if operation.done == (wanted == "done=true")]
        chosen, token = page(found, request.page_size, request.page_token)
        return _pb.ListOperationsResponse(operations=chosen, next_page_token=token)

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
        return _pb.Operation.FromString(body)

    def _run(self, operation: Any, work: Work) -> None:
        task = asyncio.create_task(self._work(operation, work), name=operation.name)
        self._tasks[operation.name] = task
        task.add_done_callback(lambda _: self._tasks.pop(operation.name, None))

    async def _work(self, operation: Any, work: Work) -> None:
        try:
            response = await work
            operation.response.CopyFrom(pack(response))
            if operation.metadata.type_url == operation.response.type_url:
                operation.metadata.CopyFrom(operation.response)
        except Refusal as refusal:
            operation.error.code = refusal.code.value[0]
            operation.error.message = refusal.message
        except Exception as error:
            log.exception("operation %s failed", operation.name)
            operation.error.code = grpc.StatusCode.INTERNAL.value[0]
            operation.error.message = f"The local cloud failed: {type(error).__name__}: {error}"
        self._finish(operation)

    def _finish(self, operation: Any) -> None:
        operation.done = True
        if self._state.operation(operation.name) is not None:
            self._state.put_operation(operation.name, operation.SerializeToString(), done=True, resume="")
