"""Start-up and liveness probes: whether a container answers (https://cloud.google.com/run/docs/configuring/healthchecks)."""

import asyncio
import time
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import aiohttp
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from localcloud.instances.blueprint import Probe
from localcloud.instances.ways import Address

_SILENCE_S = 0.3
_EVERY_S = 0.02
_CONTENTS = 1024
_LATE = "Connection failed with status DEADLINE_EXCEEDED."
_REFUSED = "Connection failed with status ERROR_CONNECTION_FAILED."
CANCELLED = "Connection failed with status CANCELLED."


@dataclass(frozen=True)
class Outcome:
    """How probing ended: `problem` is "" if it was answered, else the system log's line about the last attempt."""

    problem: str
    attempts: int


async def started(probe: Probe, at: Address, budget_s: float) -> Outcome:
    """Probe until it answers or may not be tried any more.

    The default probe is one attempt as long as the budget; a declared one has its own times, cut to the budget.
    """
    if probe.default:
        return Outcome(await _tcp(at, budget_s), 1)
    deadline = time.monotonic() + budget_s
    await asyncio.sleep(min(probe.initial_delay_s, budget_s))
    attempts, problem = 0, _LATE
    while attempts < probe.attempts and time.monotonic() < deadline:
        attempts += 1
        began = time.monotonic()
        problem = await _ask(probe, at, min(probe.timeout_s, deadline - began))
        if not problem:
            break
        if attempts < probe.attempts:
            rest = began + probe.period_s - time.monotonic()
            await asyncio.sleep(max(min(rest, deadline - time.monotonic()), 0))
    return Outcome(problem, max(attempts, 1))


async def failed(probe: Probe, at: Address) -> Outcome:
    """Probe for as long as it answers; gives how it ended when it failed as often in a row as it may not."""
    await asyncio.sleep(probe.initial_delay_s)
    failures = 0
    while True:
        began = time.monotonic()
        problem = await _ask(probe, at, probe.timeout_s)
        failures = failures + 1 if problem else 0
        if failures >= probe.attempts:
            return Outcome(problem, failures)
        await asyncio.sleep(max(began + probe.period_s - time.monotonic(), 0))


async def _ask(probe: Probe, at: Address, seconds: float) -> str:
    """One attempt; gives its problem."""
    if probe.kind == "HTTP":
        return await _http(probe, at, seconds)
    if probe.kind == "GRPC":
        return await _grpc(probe, at, seconds)
    return await _tcp(at, seconds)


async def _tcp(at: Address, seconds: float) -> str:
    """Connect until somebody accepts."""
    deadline = time.monotonic() + seconds
    while not await _listens(at):
        if time.monotonic() >= deadline:
            return _LATE
        await asyncio.sleep(_EVERY_S)
    return ""


async def _listens(at: Address) -> bool:
    """Connect, and through a published port listen for a moment as well: the Engine's own proxy accepts before the container does, and
    hangs up at once if nobody listens there."""
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection(at.host, at.port), 1)
    except (OSError, TimeoutError):
        return False
    try:
        return at.own or bool(await asyncio.wait_for(reader.read(1), _SILENCE_S))
    except TimeoutError:
        return True  # it waits for us to speak
    except OSError:
        return False
    finally:
        writer.close()


async def _http(probe: Probe, at: Address, seconds: float) -> str:
    timeout = aiohttp.ClientTimeout(total=max(seconds, 0.01))
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            url = f"http://{at.host}:{at.port}{probe.path}"
            async with session.get(url, headers=dict(probe.headers), allow_redirects=False) as answer:
                if 200 <= answer.status < 400:
                    return ""
                contents = (await answer.content.read(_CONTENTS)).decode("utf-8", "replace")
                return f"HTTP request returned status {answer.status} {_phrase(answer.status)}.\nContents: {contents}"
    except TimeoutError:
        return _LATE
    except (aiohttp.ClientError, OSError):
        return _REFUSED


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


async def _grpc(probe: Probe, at: Address, seconds: float) -> str:
    """The standard health protocol (grpc.health.v1); what a failure is called is [approximated]."""
    async with grpc.aio.insecure_channel(f"{at.host}:{at.port}") as channel:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        request: Any = health_pb2.HealthCheckRequest
        served: Any = health_pb2.HealthCheckResponse
        try:
            answer = await stub.Check(request(service=probe.service), timeout=max(seconds, 0.01))
        except grpc.aio.AioRpcError as error:
            if error.code() == grpc.StatusCode.UNAVAILABLE:
                return _REFUSED
            return f"Connection failed with status {error.code().name}."
    if answer.status == served.SERVING:
        return ""
    return f"gRPC health check returned status {served.ServingStatus.Name(answer.status)}."


# what the system log says [facts §3; texts of public issue reports]


def startup_failed(probe: Probe, container: str, outcome: Outcome) -> str:
    """A failed start-up probe."""
    return f"{_lead(probe)}STARTUP {_failed(probe, container, outcome)} The instance was not started.\n{outcome.problem}"


def startup_succeeded(probe: Probe, container: str, outcome: Outcome) -> str:
    """A start-up probe that was answered."""
    tries = _count(outcome.attempts, "attempt")
    return f'{_lead(probe)}STARTUP {probe.kind} probe succeeded after {tries} for container "{container}" on {_target(probe)}.'


def liveness_failed(probe: Probe, container: str, outcome: Outcome) -> str:
    """A failed liveness probe [the second line approximated, after the start-up probe's]."""
    return f"LIVENESS {_failed(probe, container, outcome)} The instance has been shut down.\n{outcome.problem}"


def _failed(probe: Probe, container: str, outcome: Outcome) -> str:
    times = _count(outcome.attempts, "time")
    return f'{probe.kind} probe failed {times} consecutively for container "{container}" on {_target(probe)}.'


def _lead(probe: Probe) -> str:
    return "Default " if probe.default else ""


def _target(probe: Probe) -> str:
    return f'port {probe.port} path "{probe.path}"' if probe.path else f"port {probe.port}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
