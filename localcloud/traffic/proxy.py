"""The data plane: every request goes through one of the doors of services and tags to an instance, and into the log.

Answers of the front end: https://cloud.google.com/run/docs/troubleshooting#serving-errors; limits: https://cloud.google.com/run/quotas.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Protocol

import aiohttp
from aiohttp import web
from aiohttp.client_proto import ResponseHandler
from multidict import CIMultiDict
from yarl import URL

from localcloud import clock
from localcloud.instances import failures
from localcloud.instances.blueprint import Blueprint
from localcloud.instances.fleet import Fleet, Full, Instance
from localcloud.logs.entries import request_entry, system_entry
from localcloud.logs.service import LogStore
from localcloud.naming import ServiceName
from localcloud.state import State
from localcloud.traffic import answers, headers, identity, lines, websocket
from localcloud.traffic.access import Access
from localcloud.traffic.answers import Answer
from localcloud.traffic.doors import Doors
from localcloud.traffic.exchange import Exchange
from localcloud.traffic.identity import Identity
from localcloud.traffic.lines import CONNECT_S, Lines, Reply
from localcloud.traffic.routes import Routes
from localcloud.wire import Refusal

log = logging.getLogger(__name__)

_LARGEST = 32 * 2**20  # of a request with HTTP/1, and of an answer that is not chunked
_HEADER_BYTES = 65536


class Recorder(Protocol):
    """What keeps the metrics of requests."""

    def request(self, blueprint: Blueprint, status: int, latency_s: float) -> None:
        """A request has ended."""


class Proxy:
    """Listens for every service and tag, and passes each request to an instance."""

    def __init__(
        self, host: str, clone: str, state: State, fleet: Fleet, store: LogStore, tokens: Identity, metrics: Recorder
    ) -> None:
        self._host, self._fleet, self._store, self._tokens, self._metrics = host, fleet, store, tokens, metrics
        self._routes: dict[str, Routes] = {}
        server = web.Server(self._answer, access_log=None, auto_decompress=False, max_line_size=_HEADER_BYTES, max_field_size=_HEADER_BYTES)
        self._runner = web.ServerRunner(server, shutdown_timeout=5, handle_signals=False)
        self._doors = Doors(host, clone, state, self._runner)
        self._session: aiohttp.ClientSession | None = None
        self._lines = Lines(_HEADER_BYTES)
        self.arrived: Callable[[Blueprint, str], None] = lambda *_: None  # told of every request that reaches an instance

    async def open(self) -> None:
        """Begin to serve."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),  # an instance that says more than it was asked is not asked again
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=_HEADER_BYTES,
            max_field_size=_HEADER_BYTES,
        )
        await self._runner.setup()
        self._doors.ready()

    async def close(self) -> None:
        """Let requests in flight end for a moment, then stop."""
        await self._runner.cleanup()
        if self._session is not None:
            await self._session.close()
        self._lines.close()

    def reserve(self, service: ServiceName, tag: str = "") -> str:
        """Have a listener for a service or one of its tags, on the port that it always had, and give its address."""
        return self._doors.reserve(service, tag)

    def route(self, service: ServiceName, routes: Routes) -> None:
        """Serve by these routes from the next request on, and stop listening for tags that are gone."""
        self._routes[str(service)] = routes
        self._doors.shut(service, keep={"", *routes.tags})

    def forget(self, service: ServiceName) -> None:
        """Stop serving a service."""
        self._routes.pop(str(service), None)
        self._doors.shut(service, keep=set())

    # one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
        found = self._doors.owner(port)
        routes = self._routes.get(str(found[0])) if found else None
        if found is None or routes is None or not routes.access.reaches(request.remote or ""):
            return _response(answers.NOT_FOUND)  # such requests never reach the service, and its log does not know them
        service, tag = found
        path = _path(request)
        exchange = Exchange(request, service, f"http://{self._host}:{port}", path or "/", *headers.trace(request))
        exchange.blueprint = routes.pick(tag)
        try:
            if exchange.blueprint is None:
                return _refuse(exchange, answers.NOT_FOUND)
            if not path:
                return _refuse(exchange, answers.BAD_REQUEST)
            inward = headers.forwarded(request, exchange.trace, exchange.span)
            refusal = self._admit(exchange.path, routes.access, inward)
            if refusal is not None:
                return _refuse(exchange, refusal)
            if (request.content_length or 0) > _LARGEST:
                return _refuse(exchange, answers.REQUEST_TOO_LARGE)
            return await self._within(exchange, exchange.blueprint, inward)
        except asyncio.CancelledError:  # we are shutting down
            exchange.status, exchange.remark = 503, answers.BROKEN.remark
            raise
        finally:
            self._write(exchange)

    def _admit(self, path: str, access: Access, inward: CIMultiDict[str]) -> Answer | None:
        """The refusal of a caller who may not call; the token of one who may loses its signature on the way."""
        if access.open:
            return None
        name, given = headers.bearers(inward)
        if not given:
            return answers.unauthenticated(path)
        scheme, _, token = given[0].partition(" ")
        caller = self._tokens.caller(token.strip()) if len(given) == 1 and scheme.lower() == "bearer" else None
        if caller is None or not access.meant(caller.audience):
            return answers.unverified(path)
        if not access.admits(caller.email):
            return answers.unauthorized(path)
        inward[name] = f"{scheme} {identity.redacted(token.strip())}"
        return None

    async def _within(self, exchange: Exchange, blueprint: Blueprint, inward: CIMultiDict[str]) -> web.StreamResponse:
        """Pass the request on within the revision's time limit."""
        instance = None
        try:
            async with asyncio.timeout(blueprint.timeout_s):
                async with self._fleet.place(blueprint) as instance:
                    exchange.instance, exchange.placed = instance.id, time.monotonic()
                    self.arrived(blueprint, instance.id)
                    response = await self._pass(exchange, instance, inward)
                    self._fleet.judged(instance, exchange.status)
                    return response
        except TimeoutError:
            return self._fail(exchange, answers.TOO_LONG)
        except (failures.Failure, Refusal) as error:
            log.warning("no instance of %s: %s", blueprint.revision, error)
            return self._fail(exchange, _without_instance(error))
        except (aiohttp.ClientError, ConnectionError, OSError) as error:
            log.info("%s %s: %s", exchange.request.method, exchange.url, error)
            if exchange.too_large:
                return self._fail(exchange, answers.REQUEST_TOO_LARGE)
            if exchange.broken_off:  # the client's doing: the instance is not to blame
                exchange.status = 499
                return web.Response(status=400)
            if instance is not None:
                with contextlib.suppress(Refusal):  # the Engine is away as well
                    await self._fleet.suspect(instance)
            return self._fail(exchange, answers.BROKEN)

    def _fail(self, exchange: Exchange, answer: Answer) -> web.StreamResponse:
        """Answer so, or where the instance's answer had begun, break off: nothing else is left."""
        if exchange.status and exchange.request.transport is not None:
            exchange.request.transport.abort()
            if exchange.status != 101:
                self._note(exchange, answers.TRUNCATED)
        return _refuse(exchange, answer)

    async def _pass(self, exchange: Exchange, instance: Instance, inward: CIMultiDict[str]) -> web.StreamResponse:
        request = exchange.request
        if self._session is None:
            raise ConnectionError("the proxy is not open")
        if not request.body_exists and not websocket.wanted(request):
            reply = await self._lines.ask(request.method, instance.address, exchange.path, inward)
            try:
                return await self._give(exchange, reply)
            finally:
                self._lines.release(reply)
        at = instance.address
        url = URL(f"http://{at.host}:{at.port}{exchange.path}", encoded=True)
        if websocket.wanted(request):
            return await websocket.relay(exchange, self._session, url, inward)
        if request.headers.get("Expect", "").lower() == "100-continue":
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        asked = self._session.request(request.method, url, headers=inward, data=_counted(exchange), allow_redirects=False)
        async with asked as answer:
            return await self._give(exchange, answer)

    async def _give(self, exchange: Exchange, answer: "aiohttp.ClientResponse | Reply") -> web.StreamResponse:
        """Pass an instance's answer on to the client as it comes."""
        request, content = exchange.request, answer.content
        outward = headers.end_to_end(answer.headers)
        outward["Server"] = "Google Frontend"
        length = outward.get("Content-Length", "")
        if length.isdecimal() and int(length) > _LARGEST and request.method != "HEAD":
            self._note(exchange, answers.TOO_LARGE)
            return _refuse(exchange, answers.RESPONSE_TOO_LARGE)
        if not content.is_eof():
            lines.watch(_line(answer), content)
        if exchange.gone:
            exchange.status = 499
            async for _ in content.iter_any():  # the instance goes on all the same: with HTTP/1 it is not told [troubleshooting]
                pass
            return web.Response(status=499)
        exchange.status = answer.status
        if length and content.is_eof() and content.total_bytes:  # short, and all there: one write
            exchange.sent = content.total_bytes
            return web.Response(status=answer.status, reason=answer.reason, headers=outward, body=content.read_nowait(-1))
        response = web.StreamResponse(status=answer.status, reason=answer.reason, headers=outward)
        await response.prepare(request)
        async for chunk in content.iter_any():
            exchange.sent += len(chunk)
            if not exchange.gone:
                with contextlib.suppress(ConnectionError):
                    await response.write(chunk)
        with contextlib.suppress(ConnectionError):
            await response.write_eof()
        return response

    # what is told of it

    def _write(self, exchange: Exchange) -> None:
        request, service, blueprint = exchange.request, exchange.service, exchange.blueprint
        ended = time.monotonic()
        if blueprint is not None and exchange.counted:
            self._metrics.request(blueprint, exchange.status, ended - (exchange.placed or exchange.started))
        make = functools.partial(
            request_entry,
            service.project,
            service.region,
            service.service,
            blueprint.revision if blueprint else "",
            exchange.instance,
            method=request.method,
            url=exchange.url,
            status=exchange.status,
            request_size=exchange.received,
            response_size=exchange.sent,
            user_agent=request.headers.get("User-Agent", ""),
            remote_ip=request.remote or "",
            latency_s=ended - exchange.started,
            protocol=f"HTTP/{request.version.major}.{request.version.minor}",
            trace=exchange.trace,
            start_ts=exchange.at_ns / 1e9,
            labels=dict(blueprint.labels) if blueprint else {},
            referer=request.headers.get("Referer", ""),
            server_ip=self._host,
            span=exchange.span,
            sampled=exchange.sampled,
            remark=exchange.remark,
        )
        self._store_entry(make)

    def _note(self, exchange: Exchange, text: str) -> None:
        """Write a warning to the system log of the request's revision."""
        name, blueprint = exchange.service, exchange.blueprint
        revision = blueprint.revision if blueprint else ""
        stamp = clock.now()
        entry = system_entry(name.project, name.region, name.service, revision, exchange.instance, "WARNING", text, stamp)
        entry.trace = f"projects/{name.project}/traces/{exchange.trace}"
        self._store_entry(lambda: entry)

    def _store_entry(self, make: Callable[[], object]) -> None:
        try:
            self._store.write_later(make)
        except Exception as error:  # a full disk, for example: the answer does not depend on its log entry
            log.error("a log entry of a request was lost: %s", error)


def _path(request: web.BaseRequest) -> str:
    """Path and query of a request, also in absolute form; "" where there is none to serve (CONNECT, `OPTIONS *`)."""
    raw = request.raw_path
    if raw.startswith("/"):
        return raw
    if request.method == "CONNECT" or not raw.lower().startswith(("http://", "https://")):
        return ""
    return "/" + raw.partition("://")[2].partition("/")[2]


def _line(answer: "aiohttp.ClientResponse | Reply") -> ResponseHandler | None:
    if isinstance(answer, Reply):
        return answer.line
    return answer.connection.protocol if answer.connection else None


def _without_instance(error: failures.Failure | Refusal) -> Answer:
    if isinstance(error, Full):
        return answers.FULL
    return answers.NOT_STARTED if isinstance(error, failures.Failure) else answers.UNAVAILABLE


def _refuse(exchange: Exchange, answer: Answer) -> web.Response:
    exchange.status, exchange.remark, exchange.sent, exchange.counted = answer.status, answer.remark, len(answer.body), answer.counted
    return _response(answer)


def _response(answer: Answer) -> web.Response:
    given = {"Server": "Google Frontend", **answer.headers}
    return web.Response(status=answer.status, text=answer.body, content_type=answer.kind, headers=given)


async def _counted(exchange: Exchange) -> AsyncIterator[bytes]:
    try:
        async for chunk in exchange.request.content.iter_any():
            exchange.received += len(chunk)
            if exchange.received > _LARGEST:
                exchange.too_large = True
                raise ConnectionError("the request is too large")
            yield chunk
    except Exception:  # it hung up in the middle, or its chunks are none
        exchange.broken_off = True
        raise
