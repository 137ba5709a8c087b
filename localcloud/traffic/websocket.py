"""WebSockets through the proxy: both ends are spoken to as a WebSocket, and messages, pings and close codes are passed on."""

import asyncio
from typing import Any

import aiohttp
from aiohttp import WSMsgType, web
from multidict import CIMultiDict
from yarl import URL

from localcloud.traffic.exchange import Exchange

_HANDSHAKE = {"sec-websocket-key", "sec-websocket-version", "sec-websocket-extensions", "sec-websocket-protocol"}

_RAW: Any = {"autoping": False, "autoclose": False}  # pings and closes are passed on, not answered
_BROKEN = 1011
_LARGEST = 32 * 2**20  # of a message, which is held as a whole [approximated: the real one passes frames on]


def wanted(request: web.BaseRequest) -> bool:
    """Whether a request asks to become a WebSocket."""
    asked = request.headers
    return request.method == "GET" and asked.get("Upgrade", "").lower() == "websocket" and "upgrade" in asked.get("Connection", "").lower()


async def relay(exchange: Exchange, session: aiohttp.ClientSession, url: URL, headers: CIMultiDict[str]) -> web.StreamResponse:
    """Open the instance's side first (it may refuse), then ours, and pass messages until one side closes."""
    request = exchange.request
    if not web.WebSocketResponse().can_prepare(request):
        exchange.status = 400
        return web.Response(status=400, text="Bad Request")
    kept = CIMultiDict((name, value) for name, value in headers.items() if name.lower() not in _HANDSHAKE)
    offered = [each.strip() for each in request.headers.get("Sec-WebSocket-Protocol", "").split(",") if each.strip()]
    try:
        inner = await session.ws_connect(url, headers=kept, protocols=offered, max_msg_size=_LARGEST, **_RAW)
    except aiohttp.WSServerHandshakeError as refused:
        exchange.status = refused.status
        return web.Response(status=refused.status)
    async with inner:
        chosen = (inner.protocol,) if inner.protocol else ()
        outer = web.WebSocketResponse(protocols=chosen, max_msg_size=_LARGEST, compress=False, **_RAW)
        await outer.prepare(request)
        exchange.status = 101
        pumps = (_pump(outer, inner, exchange, inward=True), _pump(inner, outer, exchange, inward=False))
        ways = {asyncio.create_task(pump) for pump in pumps}
        try:
            await asyncio.wait(ways)  # when one ends it closes the other's side, so that both end
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        return outer


async def _pump(source: Any, sink: Any, exchange: Exchange, *, inward: bool) -> None:
    while True:
        message = await source.receive()
        size = len(message.data) if isinstance(message.data, (str, bytes, bytearray)) else 0
        if inward:
            exchange.received += size
        else:
            exchange.sent += size
        if message.type is WSMsgType.TEXT:
            await sink.send_str(message.data)
        elif message.type is WSMsgType.BINARY:
            await sink.send_bytes(message.data)
        elif message.type is WSMsgType.PING:
            await sink.ping(message.data)
        elif message.type is WSMsgType.PONG:
            await sink.pong(message.data)
        elif message.type is WSMsgType.CLOSE:
            reason = (message.extra or "").encode()
            await source.close(code=message.data or 1000, message=reason)
            await sink.close(code=message.data or 1000, message=reason)
            return
        else:  # broken, or closed by the other way
            await sink.close(code=_BROKEN)
            return
