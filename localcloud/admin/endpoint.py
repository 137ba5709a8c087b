"""The admin endpoint: what tests ask of the local cloud beside Google's APIs, as JSON over HTTP on a loopback port of its own.

It is safe against web pages in a browser on this machine: a page of another origin can neither read nor change anything.
"""

import json
import logging
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from aiohttp import web

from localcloud import form
from localcloud.admin import faultkinds
from localcloud.admin.faults import Active, Faults
from localcloud.form import Unusable
from localcloud.loopback import leads_here
from localcloud.state import State
from localcloud.wire import Refusal

log = logging.getLogger(__name__)

_MOST_BYTES = 256 * 2**20  # an import of a thousand services with their log
_PORT_KEY = ("admin", "")  # in the table of ports, where services have names with slashes
Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Admin:
    """The endpoint. Its routes are given by the parts of the local cloud that it speaks for."""

    def __init__(self, host: str, state: State, faults: Faults) -> None:
        self._host, self._state, self._faults = host, state, faults
        self._app = web.Application(middlewares=[_safe, _in_words], client_max_size=_MOST_BYTES)
        self._runner = web.AppRunner(self._app, access_log=None, handle_signals=False, shutdown_timeout=1)
        self._door: socket.socket | None = None
        self.add("POST", "/faults", self._ask)
        self.add("GET", "/faults", self._all)
        self.add("DELETE", "/faults", self._delete_all)
        self.add("GET", "/faults/{id}", self._one)
        self.add("DELETE", "/faults/{id}", self._delete)

    def add(self, method: str, path: str, answer: Answer) -> None:
        """Serve one more thing; before `open`."""
        self._app.router.add_route(method, path, answer)

    def bind(self, port: int) -> None:
        """Take this port (0: the one that it had before, else a free one); OSError if it is taken."""
        kept = self._state.port(*_PORT_KEY) or 0
        for each in (port,) if port else dict.fromkeys((kept, 0)):
            door = socket.socket()
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind((self._host, each))
                door.listen(64)
            except OSError:
                door.close()
                continue
            door.setblocking(False)
            self._door = door
            return
        raise OSError(f"Port {port} on {self._host} is in use: choose another with --admin-port, or end what listens there.")

    async def open(self, told: Path) -> str:
        """Serve on the port that was taken, write the address into a file and give it."""
        assert self._door is not None
        await self._runner.setup()
        await web.SockSite(self._runner, self._door).start()
        number = self._door.getsockname()[1]
        self._state.put_port(*_PORT_KEY, number)
        address = f"{self._host}:{number}"
        told.write_text(f"{address}\n")
        return address

    async def close(self) -> None:
        """Serve no more."""
        await self._runner.cleanup()

    # faults

    async def _ask(self, request: web.Request) -> web.Response:
        return answer((await self._faults.ask(faultkinds.read(await body(request)))).told(), status=201)

    async def _all(self, _: web.Request) -> web.Response:
        return answer({"faults": [each.told() for each in self._faults.all()]})

    async def _one(self, request: web.Request) -> web.Response:
        return answer(self._found(request).told())

    async def _delete(self, request: web.Request) -> web.Response:
        found = self._found(request)
        await self._faults.delete(found.id)
        return answer(found.told())

    async def _delete_all(self, _: web.Request) -> web.Response:
        found = self._faults.all()
        for each in found:
            await self._faults.delete(each.id)
        return answer({"faults": [each.told() for each in found]})

    def _found(self, request: web.Request) -> Active:
        wanted = request.match_info["id"]
        found = self._faults.find(wanted)
        if found is None:
            text = f"There is no fault '{wanted[:60]}'."
            raise Missing(text, request.path[:100], "GET /faults tells those that there are.")
        return found


class Missing(Unusable):
    """What was asked for does not exist."""


async def body(request: web.Request) -> Any:
    """The JSON that was sent."""
    try:
        found = json.loads(await request.text() or "{}")
        json.dumps(found, ensure_ascii=False).encode()  # half a character could not be shown on the page
    except (ValueError, LookupError, RecursionError) as error:
        where = f"{request.method} {request.path}"
        remedy = 'Send one object, such as {"kind": "error", "code": "UNAVAILABLE"}.'
        raise Unusable(f"The body is not JSON ({error}).", where, remedy) from None
    return found


def answer(value: Any, status: int = 200) -> web.Response:
    """JSON, with a line break at its end."""
    return web.json_response(value, status=status, dumps=lambda each: json.dumps(each, indent=2) + "\n")


def _told(what: str, where: str, remedy: str, status: int) -> web.Response:
    return answer({"what": what, "where": where, "remedy": remedy}, status)


@web.middleware
async def _in_words(request: web.Request, handler: Answer) -> web.StreamResponse:  # noqa: PLR0911 - one for each error
    """Answer with a sentence whatever goes wrong."""
    where = f"{request.method} {request.path}"
    try:
        return await handler(request)
    except Missing as error:
        return _told(error.what, error.where, error.remedy, 404)
    except Unusable as error:
        return _told(error.what, error.where, error.remedy, 400)
    except Refusal as refusal:
        return _told(refusal.message, where, "Read what is there (GET /state), and ask again.", 409)
    except web.HTTPNotFound:
        known = sorted({each.canonical for each in request.app.router.resources()})
        return _told(f"There is no {request.path[:100]} here.", where, form.nearest(request.path, known), 404)
    except web.HTTPMethodNotAllowed as error:
        allowed = ", ".join(sorted(error.allowed_methods))
        return _told(f"{request.path} does not take {request.method}.", where, f"It takes {allowed}.", 405)
    except web.HTTPRequestEntityTooLarge:
        return _told("The body is too large.", where, f"Send at most {_MOST_BYTES // 2**20} MiB at a time.", 413)
    except Exception as error:
        log.exception("%s failed", where)
        return _told(f"The local cloud failed: {type(error).__name__}: {error}", where, "Its log says more.", 500)


@web.middleware
async def _safe(request: web.Request, handler: Answer) -> web.StreamResponse:
    """Refuse what a web page of another origin can make a browser send (DNS rebinding, forms, scripts)."""
    where = f"{request.method} {request.path}"
    if not leads_here(request.host):
        return _told(f"The host '{request.host[:100]}' is not this one.", where, "Ask by a loopback address: http://127.0.0.1:PORT.", 403)
    origin = request.headers.get("Origin")
    if origin is not None and origin.partition("://")[2] != request.host:
        return _told(f"A page of {origin[:100]} may not ask this.", where, "Ask by a program, or from the page at /.", 403)
    if request.method in {"POST", "PATCH", "PUT"} and request.content_type != "application/json":
        return _told("The body must be JSON.", where, "Send it with Content-Type: application/json.", 415)
    response = await handler(request)
    if not response.prepared:
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Cache-Control"] = "no-store"
        response.headers.setdefault("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
    return response
