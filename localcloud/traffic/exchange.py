"""One request on its way through the data plane, as its log entry will tell it."""

import time
from dataclasses import dataclass, field

from aiohttp import web

from localcloud import clock
from localcloud.instances.blueprint import Blueprint
from localcloud.naming import ServiceName


@dataclass
class Exchange:
    """One request on its way, as its log entry will tell it. `path` begins with a slash, whatever the client wrote."""

    request: web.BaseRequest
    service: ServiceName
    base: str
    path: str
    trace: str
    span: str
    sampled: bool
    blueprint: Blueprint | None = None
    instance: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    remark: str = ""
    counted: bool = True  # in the metrics
    broken_off: bool = False  # by the client, before its request was whole
    too_large: bool = False  # its request is
    placed: float = 0  # when it had an instance
    started: float = field(default_factory=time.monotonic)
    at_ns: int = field(default_factory=clock.time_ns)

    @property
    def url(self) -> str:
        """The whole URL that was asked for."""
        return self.base + self.path

    @property
    def gone(self) -> bool:
        """Whether the client has hung up."""
        transport = self.request.transport
        return transport is None or transport.is_closing()
