"""`python -m benchmarks.load PORT CONNECTIONS SECONDS`: GET / as fast as answers come, and the figures as one line of JSON.

A process of its own, and a protocol instead of an HTTP library: the load must cost less than what it measures.
"""

import asyncio
import json
import sys
import time
from dataclasses import asdict, dataclass

_REQUEST = b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n"


@dataclass(frozen=True)
class Load:
    """What a load saw: answers, answers other than 200, requests a second, and milliseconds that half and nearly all took at most."""

    answers: int
    errors: int
    rate: float
    p50_ms: float
    p99_ms: float


class Client(asyncio.Protocol):
    """One connection with one request under way at a time."""

    def __init__(self, until: float, took: list[float], errors: list[str]) -> None:
        self._until, self._took, self._errors = until, took, errors
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._ask()

    def _ask(self) -> None:
        self._seen, self._began = b"", time.perf_counter()
        self._transport.write(_REQUEST)

    def data_received(self, data: bytes) -> None:
        self._seen += data
        head, blank, body = self._seen.partition(b"\r\n\r\n")
        if not blank:
            return
        length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
        if len(body) < length:
            return
        now = time.perf_counter()
        self._took.append(now - self._began)
        if not head.startswith(b"HTTP/1.1 200"):
            self._errors.append(head[:40].decode("latin-1"))
        if now < self._until:
            self._ask()
        else:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if time.perf_counter() < self._until:
            self._errors.append(f"connection lost: {exc}")
        if not self.done.done():
            self.done.set_result(None)


async def load(port: int, connections: int, seconds: float) -> Load:
    """Keep so many connections busy for so long."""
    took: list[float] = []
    errors: list[str] = []
    began = time.perf_counter()
    make = asyncio.get_running_loop().create_connection
    clients = [(await make(lambda: Client(began + seconds, took, errors), "127.0.0.1", port))[1] for _ in range(connections)]
    await asyncio.wait_for(asyncio.gather(*(client.done for client in clients)), seconds + 30)
    spent = time.perf_counter() - began
    took.sort()
    return Load(len(took), len(errors), len(took) / spent, took[len(took) // 2] * 1000, took[len(took) * 99 // 100] * 1000)


if __name__ == "__main__":
    print(json.dumps(asdict(asyncio.run(load(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]))))))
