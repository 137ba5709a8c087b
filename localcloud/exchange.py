"""One request on its way through the data plane, as its log entry will tell it."""

import datetime
import time
from dataclasses import dataclass, field

from aiohttp import web

from localcloud import clock
from localcloud.blueprint import Blueprint
from localcloud.naming import ServiceName


@dataclass
class Exchange:
    """One request on its way, as its log entry will tell it."""

    request: web.BaseRequest
    service: ServiceName
    url: str
    trace: str
    span: str
    blueprint: Blueprint | None = None
    instance: str = ""
    status: int = 0
    sent: int = 0
    received: int = 0
    remark: str = ""
    broken_off: bool = False  # by the client, before its request was whole
    started: float = field(default_factory=time.monotonic)
    at: datetime.datetime = field(default_factory=clock.now)
