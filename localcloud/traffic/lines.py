"""Connections to instances for requests without a body, kept alive for a moment.

aiohttp's own protocol and parser, without its session: most requests go this way, and the session alone took a third of their time.
"""

import asyncio
import time
from collections import defaultdict, deque
from dataclasses import dataclass

import aiohttp
from aiohttp.client_proto import ResponseHandler
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict, CIMultiDictProxy

from localcloud.instances.ways import Address

CONNECT_S = 30  # a container whose queue is full accepts late
_KEPT_S = 1.0  # servers close idle connections too, and a request on one that is just being closed is lost
_REPEATABLE = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, eq=False)
class Reply:
    """The beginning of an answer; the rest is in `content`."""

    status: int
    reason: str | None
    headers: CIMultiDictProxy[str]
    content: aiohttp.StreamReader
    address: Address
    line: ResponseHandler


def watch(line: ResponseHandler | None, content: aiohttp.StreamReader) -> None:
    """Have who reads an answer hear that its connection ended: aiohttp does not tell where a chunk in the middle is none."""

    def ended(_: object) -> None:
        if not content.is_eof() and content.exception() is None:
            content.set_exception(aiohttp.ClientPayloadError("the answer is malformed"))

    if line is not None and line.closed is not None:
        line.closed.add_done_callback(ended)
    elif line is not None:
        ended(line)


class Lines:
    """The connections of one event loop."""

    def __init__(self, header_bytes: int) -> None:
        self._header_bytes = header_bytes
        self._idle: defaultdict[Address, deque[tuple[float, ResponseHandler]]] = defaultdict(deque)
        self._sweeping: asyncio.TimerHandle | None = None

    async def ask(self, method: str, address: Address, path: str, headers: CIMultiDict[str]) -> Reply:
        """Send a request without a body and wait for the beginning of its answer; aiohttp.ClientError or OSError if there is none."""
        head = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        if "Host" not in headers:
            head.append(f"Host: {address.host}:{address.port}")
        request = "\r\n".join([*head, "", ""]).encode("utf-8", "surrogateescape")
        kept = self._kept(address)
        if kept is not None:
            try:
                return await self._exchange(kept, request, method, address)
            except (aiohttp.ServerDisconnectedError, ConnectionResetError):
                if method not in _REPEATABLE:
                    raise
        loop = asyncio.get_running_loop()
        connecting = loop.create_connection(lambda: ResponseHandler(loop), address.host, address.port)
        _, line = await asyncio.wait_for(connecting, CONNECT_S)
        return await self._exchange(line, request, method, address)

    async def _exchange(self, line: ResponseHandler, request: bytes, method: str, address: Address) -> Reply:
        line.set_response_params(
            skip_payload=method == "HEAD",
            read_until_eof=True,
            auto_decompress=False,
            max_line_size=self._header_bytes,
            max_field_size=self._header_bytes,
        )
        try:
            if line.transport is None:
                raise aiohttp.ServerDisconnectedError
            line.transport.write(request)
            while True:
                message, content = await line.read()
                if message.code >= 200:
                    return Reply(message.code, message.reason, message.headers, content, address, line)
                if message.code == 101:
                    raise aiohttp.ClientPayloadError("the instance changed the protocol, which nobody asked for")
        except HttpProcessingError as error:
            line.close()
            reason = error.message.strip().split("\n", 1)[0].rstrip(":")  # the rest shows the answer itself
            raise aiohttp.ClientPayloadError(f"the answer is malformed: {reason}") from None
        except BaseException:
            line.close()
            raise

    def release(self, reply: Reply) -> None:
        """The answer was read, or is given up: keep its connection only in the first case."""
        if not reply.content.is_eof() or reply.line.should_close:
            reply.line.close()
            return
        self._idle[reply.address].append((time.monotonic(), reply.line))
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(_KEPT_S, self._sweep)

    def close(self) -> None:
        """Close what is kept."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for kept in self._idle.values():
            for _, line in kept:
                line.close()
        self._idle.clear()

    def _kept(self, address: Address) -> ResponseHandler | None:
        kept = self._idle.get(address)
        while kept:
            since, line = kept.pop()
            quiet = not line.should_close  # nothing has come since the answer, which would be taken for the next one
            if line.is_connected() and quiet and time.monotonic() - since < _KEPT_S:
                return line
            line.close()
        return None

    def _sweep(self) -> None:
        self._sweeping = None
        now = time.monotonic()
        for address, kept in list(self._idle.items()):
            while kept and (now - kept[0][0] >= _KEPT_S or not kept[0][1].is_connected()):
                kept.popleft()[1].close()
            if not kept:
                del self._idle[address]
        if self._idle:
            self._sweeping = asyncio.get_running_loop().call_later(_KEPT_S, self._sweep)
