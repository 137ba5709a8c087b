"""The data plane: a loopback port for each service and each tag, in front of the instances.

Answers of the front end: https://cloud.google.com/run/docs/troubleshooting#serving-errors; request log: facts of real entries.
"""

import asyncio
import contextlib
import html
import logging
import os
import re
import socket
import time
import zlib
from collections.abc import AsyncIterator

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from localcloud import failures, websocket
from localcloud.blueprint import Blueprint
from localcloud.entries import request_entry
from localcloud.exchange import Exchange
from localcloud.instances import Fleet, Instance
from localcloud.logs import LogStore
from localcloud.naming import ServiceName
from localcloud.routes import Routes
from localcloud.state import State
from localcloud.wire import Code, Refusal

log = logging.getLogger(__name__)

_HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect",
}  # fmt: skip
_PORTS = range(20000, 30000)  # below the ports that the system gives to outgoing connections
_NO_INSTANCE = "The request was aborted because there was no available instance."
_MALFORMED = "The request failed because either the HTTP response was malformed or connection to the instance had an error."
_TOO_LONG = (
    "The request has been terminated because it has reached the maximum request timeout. To change this limit, see "
    "https://cloud.google.com/run/docs/configuring/request-timeout"
)
_NOT_AUTHENTICATED = (
    "The request was not authenticated. Either allow unauthenticated invocations or set the proper Authorization header. "
    "Read more at https://cloud.google.com/run/docs/securing/authenticating Additional troubleshooting documentation can be found at: "
    "https://cloud.google.com/run/docs/troubleshooting#401"
)


class Proxy:
    """Listens for every service and tag, and passes each request to an instance."""

    def __init__(self, host: str, clone: str, state: State, fleet: Fleet, store: LogStore) -> None:
        self._host, self._clone, self._state, self._fleet, self._store = host, clone, state, fleet, store
        self._routes: dict[str, Routes] = {}
        self._doors: dict[int, tuple[ServiceName, str]] = {}
        self._sites: dict[int, tuple[socket.socket, asyncio.Task[web.SockSite]]] = {}
        self._server = web.Server(self._answer, access_log=None, auto_decompress=False, max_line_size=65536, max_field_size=65536)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=5, handle_signals=False)
        self._ready = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> None:
        """Begin to serve."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=1.0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=65536,
            max_field_size=65536,
        )
        await self._runner.setup()
        self._ready.set()

    async def close(self) -> None:
        """Let requests in flight end for a moment, then stop."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()

    def reserve(self, service: ServiceName, tag: str = "") -> str:
        """Have a listener for a service or one of its tags, on the port that it always had, and give its address."""
        key = str(service)
        port = self._state.port(key, tag)
        if port is None or port not in self._doors:
            door = self._bind(key, tag, port)
            port = door.getsockname()[1]
            self._state.put_port(key, tag, port)
            self._doors[port] = (service, tag)
            self._sites[port] = (door, asyncio.create_task(self._serve(door)))
        return f"http://{self._host}:{port}"

    async def _serve(self, door: socket.socket) -> web.SockSite:
        await self._ready.wait()
        site = web.SockSite(self._runner, door, backlog=256)
        await site.start()
        return site

    def _bind(self, key: str, tag: str, wanted: int | None) -> socket.socket:
        taken = self._state.ports()
        first = zlib.crc32(f"{self._clone} {key} {tag}".encode()) % len(_PORTS)
        choices = [_PORTS[(first + step) % len(_PORTS)] for step in range(200)]
        for port in ([wanted] if wanted else []) + [port for port in choices if port not in taken] + [0]:
            door = socket.socket()
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind((self._host, port))
                door.listen(256)
            except OSError:
                door.close()
                continue
            door.setblocking(False)
            return door
        raise Refusal(Code.RESOURCE_EXHAUSTED, f"No free port for {key} on {self._host}.")

    def route(self, service: ServiceName, routes: Routes) -> None:
        """Serve by these routes from the next request on, and stop listening for tags that are gone."""
        self._routes[str(service)] = routes
        self._shut(service, keep={"", *routes.tags})

    def forget(self, service: ServiceName) -> None:
        """Stop serving a service."""
        self._routes.pop(str(service), None)
        self._shut(service, keep=set())

    def _shut(self, service: ServiceName, keep: set[str]) -> None:
        for port, (owner, tag) in list(self._doors.items()):
            if owner == service and tag not in keep:
                del self._doors[port]
                door, site = self._sites.pop(port)
                task = asyncio.create_task(_stop(door, site))
                self._closing.add(task)
                task.add_done_callback(self._closing.discard)

    # one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        service, tag = self._doors.get(port, (None, ""))
        if service is None:
            return web.Response(status=404, text="Not Found")
        trace, span = _trace(request)
        exchange = Exchange(request, service, f"http://{self._host}:{port}{request.raw_path}", trace, span)
        routes = self._routes.get(str(service), Routes())
        blueprint = exchange.blueprint = routes.pick(tag)
        try:
            if blueprint is None:
                return _refuse(exchange, 404, "", _page(404, "Not Found", "The requested URL was not found on this server."))
            if not routes.public:
                text = f"Your client does not have permission to get URL <code>{html.escape(request.path)}</code> from this server."
                return _refuse(exchange, 403, _NOT_AUTHENTICATED, _page(403, "Forbidden", text))
            return await self._within(exchange, blueprint)
        finally:
            self._write(exchange)

    async def _within(self, exchange: Exchange, blueprint: Blueprint) -> web.StreamResponse:
        """Pass the request on within the revision's time limit."""
        instance = None
        try:
            async with asyncio.timeout(blueprint.timeout_s):
                instance = await self._fleet.instance(blueprint)
                async with instance.request():
                    exchange.instance = instance.id
                    return await self._pass(exchange, instance)
        except TimeoutError:
            if exchange.status:  # the answer had begun: nothing but breaking off is left
                _break_off(exchange.request)
            exchange.status, exchange.remark = 504, _TOO_LONG
            return web.Response(status=504, text="upstream request timeout")
        except (failures.Failure, Refusal) as error:
            log.warning("no instance of %s: %s", blueprint.revision, error)
            return _refuse(exchange, 503, _NO_INSTANCE, "Service Unavailable", "text/plain")
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            log.info("%s %s: %s", exchange.request.method, exchange.url, error)
            if exchange.broken_off:  # the client's doing: the instance is not to blame
                exchange.status = 499
                return web.Response(status=400)
            if instance is not None:
                with contextlib.suppress(Refusal):  # the Engine is away as well
                    await self._fleet.suspect(instance)
            if exchange.status:
                _break_off(exchange.request)
            return _refuse(exchange, 503, _MALFORMED, "Service Unavailable", "text/plain")

    async def _pass(self, exchange: Exchange, instance: Instance) -> web.StreamResponse:
        request = exchange.request
        if self._session is None:
            raise ConnectionError("the proxy is not open")
        headers = _forwarded(exchange)
        if websocket.wanted(request):
            return await websocket.relay(exchange, self._session, instance.port, headers)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = _counted(exchange) if request.body_exists else None
        url = websocket.target(request, instance.port)
        async with self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as answer:
            response = web.StreamResponse(status=answer.status, reason=answer.reason)
            response.headers.extend(_end_to_end(answer.headers))
            response.headers["Server"] = "Google Frontend"
            exchange.status = answer.status
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                exchange.sent += len(chunk)
                try:
                    await response.write(chunk)
                except ConnectionError:  # the client went away
                    return response
            await response.write_eof()
            return response

    def _write(self, exchange: Exchange) -> None:
        request, service = exchange.request, exchange.service
        entry = request_entry(
            service.project,
            service.region,
            service.service,
            exchange.blueprint.revision if exchange.blueprint else "",
            exchange.instance,
            method=request.method,
            url=exchange.url,
            status=exchange.status or 499,
            request_size=exchange.received,
            response_size=exchange.sent,
            user_agent=request.headers.get("User-Agent", ""),
            remote_ip=request.remote or "",
            latency_s=time.monotonic() - exchange.started,
            protocol=f"HTTP/{request.version.major}.{request.version.minor}",
            trace=exchange.trace,
            start_ts=exchange.at,
            labels=dict(exchange.blueprint.labels) if exchange.blueprint else {},
        )
        if exchange.remark:
            entry.text_payload = exchange.remark
        entry.span_id = exchange.span
        try:
            self._store.write([entry])
        except Exception as error:  # a full disk, for example: the answer does not depend on its log entry
            log.error("a request log entry was lost: %s", error)


async def _stop(door: socket.socket, site: "asyncio.Task[web.SockSite]") -> None:
    site.cancel()
    try:
        await (await site).stop()
    except asyncio.CancelledError:
        door.close()


def _refuse(exchange: Exchange, status: int, remark: str, body: str, kind: str = "text/html") -> web.Response:
    exchange.status, exchange.remark, exchange.sent = status, remark, len(body)
    return web.Response(status=status, text=body, content_type=kind)


def _page(status: int, title: str, text: str) -> str:
    """The front end's error page [from memory]."""
    return (
        '<html><head>\n<meta http-equiv="content-type" content="text/html;charset=utf-8">\n'
        f"<title>{status} {title}</title>\n</head>\n<body text=#000000 bgcolor=#ffffff>\n"
        f"<h1>Error: {title}</h1>\n<h2>{text}</h2>\n<h2></h2>\n</body></html>\n"
    )


def _break_off(request: web.BaseRequest) -> None:
    if request.transport is not None:
        request.transport.abort()


async def _counted(exchange: Exchange) -> AsyncIterator[bytes]:
    try:
        async for chunk in exchange.request.content.iter_any():
            exchange.received += len(chunk)
            yield chunk
    except Exception:  # it hung up in the middle, or its chunks are none
        exchange.broken_off = True
        raise


def _end_to_end(headers: "aiohttp.typedefs.LooseHeaders") -> CIMultiDict[str]:
    kept: CIMultiDict[str] = CIMultiDict(headers)
    named = {name.strip().lower() for value in kept.getall("Connection", []) for name in value.split(",")}
    for name in {key.lower() for key in kept} & (_HOP_BY_HOP | named):
        del kept[name]
    return kept


def _forwarded(exchange: Exchange) -> CIMultiDict[str]:
    """The request's headers as the instance gets them [https://cloud.google.com/run/docs/container-contract, trace headers]."""
    request = exchange.request
    headers = _end_to_end(request.headers)
    before = headers.get("X-Forwarded-For")
    remote = request.remote or "127.0.0.1"
    headers["X-Forwarded-For"] = f"{before}, {remote}" if before else remote
    headers["X-Forwarded-Proto"] = "http"
    headers.setdefault("traceparent", f"00-{exchange.trace}-{exchange.span}-00")
    headers.setdefault("X-Cloud-Trace-Context", f"{exchange.trace}/{int(exchange.span, 16)};o=0")
    return headers


_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}.*")
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/(\d{1,20}))?.*", re.ASCII)


def _trace(request: web.BaseRequest) -> tuple[str, str]:
    """The trace and span that the client is in, or new ones."""
    found = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    if found:
        return found[1], found[2]
    found = _CLOUD_TRACE.fullmatch(request.headers.get("X-Cloud-Trace-Context", ""))
    if found:
        return found[1].lower(), f"{int(found[2] or 0) % 2**64 or 1:016x}"
    return os.urandom(16).hex(), os.urandom(8).hex()
