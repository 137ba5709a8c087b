"""The start-up probe: whether a container listens yet (https://cloud.google.com/run/docs/configuring/healthchecks)."""

import asyncio
import time

import aiohttp

from localcloud.blueprint import Probe

_SILENCE_S = 0.3
_EVERY_S = 0.05


async def answered(probe: Probe, port: int, budget_s: float) -> tuple[bool, int]:
    """Probe until it answers or may not be tried any more: (whether it answered, how many attempts).

    The default probe is one attempt as long as the budget; a declared one has its own times, cut to the budget.
    """
    if probe.default:
        return await _tcp(port, budget_s), 1
    deadline = time.monotonic() + budget_s
    await asyncio.sleep(min(probe.initial_delay_s, budget_s))
    attempt = 0
    while attempt < probe.attempts and time.monotonic() < deadline:
        attempt += 1
        began = time.monotonic()
        seconds = min(probe.timeout_s, deadline - began)
        if await (_http(probe, port, seconds) if probe.kind == "HTTP" else _tcp(port, seconds)):
            return True, attempt
        if attempt < probe.attempts:
            rest = began + probe.period_s - time.monotonic()
            await asyncio.sleep(max(min(rest, deadline - time.monotonic()), 0))
    return False, max(attempt, 1)


async def _tcp(port: int, seconds: float) -> bool:
    """Connect, and then listen for a moment: the Engine's own proxy accepts for a port that nobody listens on, and hangs up at once."""
    deadline = time.monotonic() + seconds
    while True:
        if await _listens(port):
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(_EVERY_S)


async def _listens(port: int) -> bool:
    try:
        reader, writer = await asyncio.wait_for(asyncio.open_connection("127.0.0.1", port), 1)
    except (OSError, TimeoutError):
        return False
    try:
        return bool(await asyncio.wait_for(reader.read(1), _SILENCE_S))
    except TimeoutError:
        return True  # it waits for us to speak
    except OSError:
        return False
    finally:
        writer.close()


async def _http(probe: Probe, port: int, seconds: float) -> bool:
    timeout = aiohttp.ClientTimeout(total=max(seconds, 0.01))
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session:
            url = f"http://127.0.0.1:{port}{probe.path}"
            async with session.get(url, headers=dict(probe.headers), allow_redirects=False) as answer:
                return 200 <= answer.status < 400
    except (aiohttp.ClientError, TimeoutError, OSError):
        return False
