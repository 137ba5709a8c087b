"""Headers on their way through the data plane [https://cloud.google.com/run/docs/container-contract]."""

import random
import re
from collections.abc import Mapping

from aiohttp import web
from multidict import CIMultiDict

_HOP_BY_HOP = {
    "connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer", "transfer-encoding", "upgrade", "expect",
}  # fmt: skip
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2}).*")
_CLOUD_TRACE = re.compile(r"([0-9a-fA-F]{32})(?:/(\d{1,20}))?(?:;o=(\d))?.*", re.ASCII)


def end_to_end(headers: Mapping[str, str]) -> CIMultiDict[str]:
    """The headers that are meant for the other end, without those of the connection itself (RFC 9110, 7.6.1)."""
    kept: CIMultiDict[str] = CIMultiDict(headers)
    gone = _HOP_BY_HOP
    for value in kept.getall("Connection", ()):
        gone = gone | {name.strip().lower() for name in value.split(",")}
    for name in gone:
        kept.popall(name, None)
    return kept


def forwarded(request: web.BaseRequest, trace: str, span: str) -> CIMultiDict[str]:
    """A request's headers as the instance gets them."""
    headers = end_to_end(request.headers)
    remote = request.remote or "127.0.0.1"
    headers["X-Forwarded-For"] = ", ".join([*headers.getall("X-Forwarded-For", ()), remote])
    headers["X-Forwarded-Proto"] = "http"
    headers["Forwarded"] = f'for="{remote}";proto=http'
    headers.setdefault("traceparent", f"00-{trace}-{span}-00")
    headers.setdefault("X-Cloud-Trace-Context", f"{trace}/{int(span, 16)};o=0")
    return headers


def trace(request: web.BaseRequest) -> tuple[str, str, bool]:
    """The trace and span that the client is in, or new ones; and whether the client has them recorded."""
    found = _TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    if found:
        return found[1], found[2], bool(int(found[3], 16) & 1)
    found = _CLOUD_TRACE.fullmatch(request.headers.get("X-Cloud-Trace-Context", ""))
    if found:
        return found[1].lower(), f"{int(found[2] or 0) % 2**64 or 1:016x}", found[3] == "1"
    return f"{random.getrandbits(128):032x}", f"{random.getrandbits(64) or 1:016x}", False


def bearers(headers: CIMultiDict[str]) -> tuple[str, list[str]]:
    """The header that says who calls, and what it says: X-Serverless-Authorization alone where it is given, else Authorization."""
    name = "X-Serverless-Authorization" if "X-Serverless-Authorization" in headers else "Authorization"
    return name, headers.getall(name, [])
