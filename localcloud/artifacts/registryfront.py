"""What Docker pushes to and pulls from: Artifact Registry's own rules in front of a plain Docker registry, blobs streamed both ways.

https://distribution.github.io/distribution/spec/api/ ; refusals as https://cloud.google.com/artifact-registry/docs/troubleshooting.
"""

import base64
import binascii
import contextlib
import logging
import random
import re
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any, Final, Protocol

import aiohttp
from aiohttp import web
from multidict import CIMultiDict

from localcloud import naming
from localcloud.artifacts.catalog import Catalog
from localcloud.artifacts.distribution import RegistryDown
from localcloud.loopback import leads_here
from localcloud.state import State

log = logging.getLogger(__name__)

_KEY: Final = "registry"  # in the table of ports
_PORTS: Final = range(12000, 20000)  # below those of the services, and below those that the system gives to outgoing connections
_USER: Final = "oauth2accesstoken"
_CHUNK: Final = 2**20
_HOP_BY_HOP: Final = {"connection", "keep-alive", "te", "trailer", "transfer-encoding", "upgrade", "expect", "authorization"}
_IMAGE: Final = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*(?:/[a-z0-9]+(?:[._-]+[a-z0-9]+)*)*"  # no "..", by which one repository leads to another
_PARTS: Final = re.compile(rf"/v2/([^/]+)/([^/]+)/({_IMAGE})/(manifests|blobs|tags)/((?:uploads/)?[^/]*)")
_READ: Final = "artifactregistry.repositories.downloadArtifacts"
_WRITE: Final = "artifactregistry.repositories.uploadArtifacts"
_DELETE: Final = "artifactregistry.repositories.deleteArtifacts"


class Doorkeeper(Protocol):
    """Who holds which access token, and what he may do."""

    def holder(self, token: str) -> str | None: ...

    def permits(self, holder: str, permission: str, resource: str) -> bool: ...


class CannotListen(Exception):
    """The port is taken: a sentence that says which, and what to do."""


class _Denial(Exception):
    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


class RegistryFront:
    """One loopback port for /v2/; a repository that was never created, and a caller that may not, are refused as Google refuses them.

    When `closed`, every caller needs a token that the `doorkeeper` knows, the password of `oauth2accesstoken`; else one without is nobody.
    """

    def __init__(self, host: str, state: State, catalog: Catalog, *, port: int = 0) -> None:
        self._host, self._catalog = host, catalog
        self._door = _bound(host, state, port)
        self.port: int = self._door.getsockname()[1]
        state.put_port(_KEY, "", self.port)
        self.doorkeeper: Doorkeeper | None = None  # without one all may do everything
        self.closed = False
        self.met: Callable[[str], bool] | None = None  # down on request: told of each request, and lets it go well by False
        self._own = secrets.token_urlsafe(24)
        self._server = web.Server(self._answer, access_log=None, auto_decompress=False, read_bufsize=_CHUNK)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=5, handle_signals=False)
        self._site: web.SockSite | None = None
        self._session: aiohttp.ClientSession | None = None

    @property
    def address(self) -> str:
        """`localhost:PORT`: how images are named; the Engine takes it without TLS."""
        return f"{'localhost' if self._host == '127.0.0.1' else self._host}:{self.port}"

    async def open(self) -> None:
        """Begin to serve."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=300),
            auto_decompress=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            read_bufsize=_CHUNK,
        )
        await self._runner.setup()
        await self.listen()

    async def close(self) -> None:
        """Stop serving."""
        await self._runner.cleanup()
        self._door.close()
        if self._session is not None:
            await self._session.close()

    @property
    def down(self) -> bool:
        """Whether it is down on request."""
        return self.met is not None or self._site is None

    async def shut(self) -> None:
        """Have nobody listen on the port, until `listen`."""
        if self._site is not None:
            await self._site.stop()
            self._site = None

    async def listen(self) -> None:
        """Have requests answered on the port."""
        if self._site is not None:
            return
        if self._door.fileno() < 0:  # it was shut
            self._door = _listening(self._host, self.port)
        self._site = web.SockSite(self._runner, self._door, backlog=256)
        await self._site.start()

    def credentials(self, image: str) -> dict[str, str] | None:
        """What the local cloud's own Engine shows to pull this image: Cloud Run's service agent may read [approximated: everything]."""
        return {"username": _USER, "password": self._own} if image.startswith(f"{self.address}/") else None

    def readable(self, project: str, image: str) -> bool:
        """Whether the service agent of Cloud Run in a project may read an image; one of another registry is not ours to refuse."""
        host, _, path = image.partition("/")
        if self.doorkeeper is None or host != self.address:
            return True
        agent = f"service-{naming.project_number(project)}@serverless-robot-prod.iam.gserviceaccount.com"
        return self.doorkeeper.permits(agent, _READ, self._repository(*path.split("/")[:2]))

    # one request

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            return await self._admitted(request)
        except _Denial as denial:
            return self._refusal(request, denial)
        except (aiohttp.ClientConnectionError, TimeoutError, RegistryDown) as error:
            text = f"The registry behind Artifact Registry, {self._catalog.registry}, does not answer ({type(error).__name__}). Start it."
            return self._refusal(request, _Denial(503, "UNAVAILABLE", text))

    async def _admitted(self, request: web.BaseRequest) -> web.StreamResponse:
        if leads_here(self._host) and not leads_here(request.host):  # else it serves other machines, by whatever name they know
            raise _Denial(403, "DENIED", f"The host '{request.host[:100]}' is not this one: ask by a loopback address, {self.address}.")
        if self.met is not None and self.met(f"{request.method} {request.path}"):
            raise _Denial(503, "UNAVAILABLE", "The service is currently unavailable.")
        if request.path == "/v2/token":
            return self._token(request)
        holder = self._holder(request)
        if request.path in {"/v2", "/v2/"}:
            return web.json_response({}, headers=_VERSION)
        parts = _PARTS.fullmatch(request.path)
        if parts is None:
            raise _Denial(404, "NAME_INVALID", "The name must be PROJECT/REPOSITORY/IMAGE.")
        project, repository, image, kind, reference = parts.groups()
        permission = {"GET": _READ, "HEAD": _READ, "DELETE": _DELETE}.get(request.method, _WRITE)
        self._permitted(holder, permission, self._repository(project, repository))
        if self._catalog.at(f"{project}/{repository}") is None:
            raise _Denial(404, "NAME_UNKNOWN", f'Repository "{repository}" not found')
        return await self._passed(request, f"{project}/{repository}/{image}", kind, reference)

    def _repository(self, project: str, repository: str = "") -> str:
        return self._catalog.at(f"{project}/{repository}") or f"projects/{project}/repositories/{repository}"

    async def _passed(self, request: web.BaseRequest, where: str, kind: str, reference: str) -> web.StreamResponse:
        assert self._session is not None
        headers = CIMultiDict((key, value) for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP)
        url = f"http://{self._catalog.registry}{request.raw_path}"  # with the caller's Host, so that Location leads back here
        body = request.content if request.body_exists else None
        async with self._session.request(request.method, url, headers=headers, data=body, allow_redirects=False) as found:
            if kind == "manifests" and found.status < 300 and request.method in {"PUT", "DELETE"}:
                await self._catalog.changed(where, reference, found.headers.get("Docker-Content-Digest", ""))
            answer = web.StreamResponse(status=found.status, reason=found.reason)
            answer.headers.extend((key, value) for key, value in found.headers.items() if key.lower() not in _HOP_BY_HOP)
            await answer.prepare(request)
            with contextlib.suppress(ConnectionResetError):  # the caller went away
                async for chunk in _body(found):
                    await answer.write(chunk)
                await answer.write_eof()
            return answer

    def _refusal(self, request: web.BaseRequest, denial: _Denial) -> web.Response:
        headers = dict(_VERSION)
        if denial.status == 401:
            where = f"{self._host}:{self.port}"
            headers["WWW-Authenticate"] = f'Bearer realm="http://{where}/v2/token",service="{where}"'
        body: dict[str, Any] = {"errors": [{"code": denial.code, "message": denial.message}]}
        answer = web.json_response(body, status=denial.status, headers=headers)
        if request.body_exists:
            answer.force_close()  # what was being sent is not read
        return answer

    # callers

    def _token(self, request: web.BaseRequest) -> web.Response:
        """[distribution spec, token] The token that is given out is the access token itself [approximated: Google's is another]."""
        token = _password(request.headers.get("Authorization", ""))
        if token and not self._known(token):
            raise _Denial(401, "UNAUTHORIZED", "authentication failed")
        return web.json_response({"token": token or "anonymous", "expires_in": 3600})

    def _holder(self, request: web.BaseRequest) -> str | None:
        """Who asks; None if he has no token, and 401 where one is missing or nobody's."""
        given = request.headers.get("Authorization", "")
        token = given[7:] if given.startswith("Bearer ") else _password(given)
        if self.doorkeeper is None:
            return None
        if not self.closed:
            return token if token == self._own else self.doorkeeper.holder(token) or ""
        if not token:
            raise _Denial(401, "UNAUTHORIZED", "authentication required")
        if token in {"anonymous", self._own}:
            return token if token == self._own else None
        if not self._known(token):
            raise _Denial(401, "UNAUTHORIZED", "authentication failed")
        return self.doorkeeper.holder(token)

    def _known(self, token: str) -> bool:
        return self.doorkeeper is None or token == self._own or self.doorkeeper.holder(token) is not None

    def _permitted(self, holder: str | None, permission: str, resource: str) -> None:
        if self.doorkeeper is None or (holder == self._own and permission == _READ):
            return
        if holder is None:  # [approximated]
            text = f'Unauthenticated request. Unauthenticated requests do not have permission "{permission}"'
            raise _Denial(403, "DENIED", f'{text} on resource "{resource}" (or it may not exist)')
        if not self.doorkeeper.permits(holder, permission, resource):
            raise _Denial(403, "DENIED", f'Permission "{permission}" denied on resource "{resource}" (or it may not exist)')


_VERSION: Final = {"Docker-Distribution-API-Version": "registry/2.0"}


async def _body(found: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    async for chunk in found.content.iter_any():
        yield chunk


def _password(authorization: str) -> str:
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        user, _, password = base64.b64decode(value).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ""
    return password if user == _USER else ""


def _bound(host: str, state: State, wanted: int) -> socket.socket:
    """A socket on the port that is asked for, else on the one that it always had, else on a free one."""
    kept = state.port(_KEY, "") if not wanted else None
    for port in [wanted] if wanted else [*([kept] if kept else []), *random.sample(_PORTS, 50), 0]:
        with contextlib.suppress(OSError):
            door = _listening(host, port)
            if kept and port != kept:
                taken = f"Port {kept} on {host}, which images are named by, is in use by another program: the registry is now on"
                log.warning("%s port %d. End what listens there and start again, or push the images again.", taken, door.getsockname()[1])
            return door
    raise CannotListen(f"Port {wanted} on {host} is in use: choose another with --registry-port, or end what listens there.")


def _listening(host: str, port: int) -> socket.socket:
    door = socket.socket()
    try:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
        door.listen(256)
        door.setblocking(False)
    except OSError:
        door.close()
        raise
    return door
