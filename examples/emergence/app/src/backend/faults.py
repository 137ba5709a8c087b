"""Faults on demand, for demonstrations and tests: read from FAULT_* variables once, at the start."""

import asyncio
import logging
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

HEALTH = "/api/health"

log = logging.getLogger(__name__)


class BadFault(Exception):
    """A FAULT_* variable says something that cannot be."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how badly; nothing, by default."""

    error_rate: float = 0.0
    error_path: str = ""
    latency_ms: float = 0.0
    slow_start_seconds: float = 0.0
    memory_mb_per_request: float = 0.0
    crash_at_start: bool = False
    never_listen: bool = False
    traceback_at_start: bool = False
    metrics_missing: bool = False
    metrics_disabled: bool = False
    health_json: bool = False

    @classmethod
    def read(cls, environment: Mapping[str, str] = os.environ) -> "Faults":
        def number(name: str, most: float) -> float:
            text = environment.get(name) or "0"
            try:
                value = float(text)
            except ValueError:
                raise BadFault(f"{name} is not a number: {text!r}") from None
            if not 0 <= value <= most:
                raise BadFault(f"{name} must be between 0 and {most:g}: {text!r}")
            return value

        def switch(name: str) -> bool:
            return environment.get(name, "").casefold() in ("1", "true", "yes", "on")

        return cls(
            error_rate=number("FAULT_ERROR_RATE", 1),
            error_path=environment.get("FAULT_ERROR_PATH", ""),
            latency_ms=number("FAULT_LATENCY_MS", 600_000),
            slow_start_seconds=number("FAULT_SLOW_START_SECONDS", 3600),
            memory_mb_per_request=number("FAULT_MEMORY_MB_PER_REQUEST", 4096),
            crash_at_start=switch("FAULT_CRASH_AT_START"),
            never_listen=switch("FAULT_NEVER_LISTEN"),
            traceback_at_start=switch("FAULT_TRACEBACK_AT_START"),
            metrics_missing=switch("FAULT_METRICS_MISSING"),
            metrics_disabled=switch("FAULT_METRICS_DISABLED"),
            health_json=switch("FAULT_HEALTH_JSON"),
        )

    def hits(self, path: str) -> bool:
        """Whether errors may meet this path: the prefix that was given, else everything but the health route."""
        return path.startswith(self.error_path) if self.error_path else path != HEALTH


class FaultyRequests:
    """Delays requests, breaks some of them, and keeps memory for each; the health route is delayed and fed by none."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults
        self._kept: list[bytes] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path, faults = scope["path"], self._faults
        if path != HEALTH:
            if faults.latency_ms:
                await asyncio.sleep(faults.latency_ms / 1000)
            if faults.memory_mb_per_request:
                self._kept.append(b"\x01" * int(faults.memory_mb_per_request * 1_000_000))
        if faults.hits(path) and random.random() < faults.error_rate:
            log.error("FAULT_ERROR_RATE: %s %s answered with 500", scope["method"], path)
            await JSONResponse({"error": "internal server error"}, status_code=500)(scope, receive, send)
            return
        await self._app(scope, receive, send)
