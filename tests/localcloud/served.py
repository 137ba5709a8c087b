"""A gRPC server of its own thread and event loop around parts of the local cloud, for the unmodified clients."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc

Start = Callable[[], Awaitable[tuple[list[Any], Callable[[], Awaitable[None]]]]]


@contextmanager
def served(start: Start) -> Iterator[str]:
    """Serve the handlers that `start` makes on the server's event loop; gives host:port, and calls what `start` gave to close them."""
    ready = threading.Event()
    address: list[str] = []
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def run() -> None:
        handlers, close = await start()
        server = grpc.aio.server()
        server.add_generic_rpc_handlers(handlers)
        address.append(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
        await server.start()
        ready.set()
        await stop.wait()
        await server.stop(1)
        await close()

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield address[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def client(kind: Any, address: str) -> Any:
    """An official client over plaintext gRPC."""
    return kind(transport=kind.get_transport_class("grpc")(channel=grpc.insecure_channel(address)))
