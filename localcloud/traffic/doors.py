"""The loopback ports of services and tags: each keeps the one that it was given first."""

import asyncio
import socket
import zlib

from aiohttp import web

from localcloud.naming import ServiceName
from localcloud.state import State
from localcloud.wire import Code, Refusal

_PORTS = range(20000, 30000)  # below the ports that the system gives to outgoing connections
_TRIES = 20  # of a port of the system's choice


class Doors:
    """Listening sockets that lead to one server. They may be opened before the server is ready, which then serves them all."""

    def __init__(self, host: str, clone: str, state: State, runner: web.ServerRunner) -> None:
        self._host, self._clone, self._state, self._runner = host, clone, state, runner
        self._owners: dict[int, tuple[ServiceName, str]] = {}
        self._sites: dict[int, tuple[socket.socket, asyncio.Task[web.SockSite]]] = {}
        self._ready = asyncio.Event()
        self._closing: set[asyncio.Task[None]] = set()

    def ready(self) -> None:
        """The server is ready: serve."""
        self._ready.set()

    def owner(self, port: int) -> tuple[ServiceName, str] | None:
        """The service and tag ("" for the service itself) whose door this port is."""
        return self._owners.get(port)

    def reserve(self, service: ServiceName, tag: str) -> str:
        """Have a door for a service or one of its tags, on the port that it always had, and give its address."""
        key = str(service)
        port = self._state.port(key, tag)
        if port is None or port not in self._owners:
            door = self._bind(key, tag, port)
            port = door.getsockname()[1]
            self._state.put_port(key, tag, port)
            self._owners[port] = (service, tag)
            self._sites[port] = (door, asyncio.create_task(self._serve(door)))
            self._state.afterwards(lambda: None, lambda: self._close(port))
        return f"http://{self._host}:{port}"

    def shut(self, service: ServiceName, keep: set[str]) -> None:
        """Close the doors of a service but those of these tags."""
        for port, (owner, tag) in list(self._owners.items()):
            if owner == service and tag not in keep:
                self._close(port)

    def _close(self, port: int) -> None:
        del self._owners[port]
        door, site = self._sites.pop(port)
        task = asyncio.create_task(_stop(door, site))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)

    async def _serve(self, door: socket.socket) -> web.SockSite:
        await self._ready.wait()
        site = web.SockSite(self._runner, door, backlog=256)
        await site.start()
        return site

    def _bind(self, key: str, tag: str, wanted: int | None) -> socket.socket:
        taken = self._state.ports()
        first = zlib.crc32(f"{self._clone} {key} {tag}".encode()) % len(_PORTS)
        choices = [_PORTS[(first + step) % len(_PORTS)] for step in range(200)]
        for port in ([wanted] if wanted else []) + [port for port in choices if port not in taken] + [0] * _TRIES:
            try:
                door = socket.socket()
            except OSError as error:
                text = f"No socket for {key}: {error.strerror}. Allow this user more open files (ulimit -n), and start again."
                raise Refusal(Code.RESOURCE_EXHAUSTED, text) from None
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                door.bind((self._host, port))
                door.listen(256)
            except OSError:
                door.close()
                continue
            if port == 0 and door.getsockname()[1] in taken:  # the system's choice is somebody's who has no door at the moment
                door.close()
                continue
            door.setblocking(False)
            return door
        raise Refusal(Code.RESOURCE_EXHAUSTED, f"No free port for {key} on {self._host}.")


async def _stop(door: socket.socket, site: "asyncio.Task[web.SockSite]") -> None:
    site.cancel()
    try:
        await (await site).stop()
    except asyncio.CancelledError:
        door.close()
