"""What may happen between a release and the cloud: calls pass through here as they are, and a test says what else happens."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc


class Between(grpc.GenericRpcHandler):
    """Passes every call on in bytes; `before` acts ahead of a method's next call, `lose` drops its answer, `refuse` lets none through."""

    def __init__(self, host: str) -> None:
        self.calls: list[str] = []
        self._channel = grpc.insecure_channel(host)
        self._before: dict[str, Callable[[], object]] = {}
        self._lost: dict[str, int] = {}
        self._refused: dict[str, tuple[grpc.StatusCode, str]] = {}
        self._changed: dict[str, Callable[[bytes], bytes]] = {}

    def before(self, method: str, act: Callable[[], object]) -> None:
        """Something that somebody else does just ahead of the next call of this method."""
        self._before[method] = act

    def lose(self, method: str, times: int = 1) -> None:
        """The next answers of this method are lost after they have had their effect."""
        self._lost[method] = times

    def refuse(self, method: str, code: grpc.StatusCode, why: str) -> None:
        """From now on nothing of this method gets through."""
        self._refused[method] = (code, why)

    def change(self, method: str, how: Callable[[bytes], bytes]) -> None:
        """From now on the answers of this method say something else."""
        self._changed[method] = how

    def count(self, method: str) -> int:
        """How many calls of this method have got through."""
        return self.calls.count(method)

    def service(self, details: Any) -> Any:
        return grpc.unary_unary_rpc_method_handler(lambda request, context: self._pass(details.method, request, context))

    def _pass(self, path: str, request: bytes, context: Any) -> bytes:
        method = path.rpartition("/")[2]
        if act := self._before.pop(method, None):
            act()
        if method in self._refused:
            context.abort(*self._refused[method])
        routing = [(key, value) for key, value in context.invocation_metadata() if key.startswith("x-goog")]
        try:
            answer: bytes = self._channel.unary_unary(path)(request, timeout=context.time_remaining() or 30, metadata=routing)
        except grpc.RpcError as error:
            context.abort(error.code(), error.details())  # type: ignore[attr-defined]
        self.calls.append(method)
        if self._lost.get(method, 0):
            self._lost[method] -= 1
            context.abort(grpc.StatusCode.UNAVAILABLE, "Connection reset by peer")
        return self._changed.get(method, lambda same: same)(answer)


@contextmanager
def between(host: str) -> Iterator[tuple[Between, str]]:
    """A way to the cloud at `host` on which things happen, and its own host:port."""
    made = Between(host)
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    server.add_generic_rpc_handlers((made,))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield made, f"127.0.0.1:{port}"
    finally:
        server.stop(0).wait(5)
        made._channel.close()
