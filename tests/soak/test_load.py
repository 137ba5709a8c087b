"""Requests go on while the traffic changes again and again: none is lost, and the split is the one that was asked for."""

import asyncio
import math
import time
from dataclasses import dataclass

import aiohttp
from clouds import Cloud, pinned
from soaking import Soak

CONNECTIONS = 16
PER_STEP = 100


@dataclass(frozen=True)
class Answer:
    """One request: when it went out, when its answer was whole, and who answered; a fault instead of that for one that was lost."""

    sent: float
    whole: float
    said: str
    fault: str = ""


async def ask(session: aiohttp.ClientSession, url: str) -> Answer:
    sent = time.monotonic()
    try:
        async with session.get(url) as answer:
            said = await answer.text()
            return Answer(sent, time.monotonic(), said, "" if answer.status == 200 else f"{answer.status} {said[:80]}")
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return Answer(sent, time.monotonic(), "", repr(error))


async def ask_for_ever(url: str, answers: list[Answer], stop: asyncio.Event) -> None:
    """Ask on so many connections, one request after the other on each, until told to stop."""
    timeout = aiohttp.ClientTimeout(total=30)
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=CONNECTIONS), timeout=timeout) as session:

        async def one() -> None:
            while not stop.is_set():
                answers.append(await ask(session, url))

        await asyncio.gather(*(one() for _ in range(CONNECTIONS)))


def surprise(share: float, count: int, total: int) -> float:
    """By how many standard deviations the count of one revision differs from its share of so many requests."""
    if share in (0, 1):
        return 0.0 if count == share * total else math.inf
    return abs(count - share * total) / math.sqrt(total * share * (1 - share))


def most_outside(steps: int) -> int:
    """How many of so many steps may lie outside three standard deviations: beyond that, chance does so less than once in a million runs."""
    outside = 0.0027
    below, allowed = 0.0, -1
    while below < 1 - 1e-6:
        allowed += 1
        below += math.comb(steps, allowed) * outside**allowed * (1 - outside) ** (steps - allowed)
    return allowed


def test_no_request_is_lost_while_the_traffic_changes_and_each_split_is_the_one_asked_for(cloud: Cloud, soak: Soak) -> None:
    steps, chance = soak.rounds(sample=15, whole=100), soak.random()
    cloud.create("load", env={"SAY": "a"}, revision="load-a")
    service = cloud.get("load")
    service.template = cloud.template({"SAY": "b"}, "load-b")
    service.traffic = [pinned("load-a", 100), pinned("load-b", 0, "b")]
    service = cloud.update(service, "template", "traffic")
    answers: list[Answer] = []
    spans: list[tuple[int, float, float]] = []

    async def change() -> None:
        stop = asyncio.Event()
        asking = asyncio.create_task(ask_for_ever(service.uri, answers, stop))
        try:
            for step in range(steps):
                share = (0, 100)[step % 2] if step < 2 else chance.randint(1, 99)
                service.traffic = [pinned("load-a", 100 - share), pinned("load-b", share, "b")]
                service.etag = ""
                await asyncio.to_thread(cloud.update, service, "traffic")
                began, before = time.monotonic(), len(answers)
                async with asyncio.timeout(30):
                    while len(answers) < before + PER_STEP + CONNECTIONS and not asking.done():
                        await asyncio.sleep(0.005)
                spans.append((share, began, time.monotonic()))
        finally:
            stop.set()
            await asking

    asyncio.run(change())
    lost = [answer.fault for answer in answers if answer.fault]
    assert not lost, f"{len(lost)} of {len(answers)} requests were lost: {lost[:3]}"
    wide = 0
    for share, began, ended in spans:
        said = [answer.said for answer in answers if began <= answer.sent and answer.whole <= ended]
        deviations = surprise(share / 100, said.count("b"), len(said))
        assert len(said) >= PER_STEP
        assert deviations <= 6, f"{said.count('b')} of {len(said)} for a share of {share} %"
        wide += deviations > 3
    assert wide <= most_outside(steps), f"{wide} of {steps} splits lie outside three standard deviations"
    seconds = spans[-1][2] - spans[0][1]
    print(f"\nload: {len(answers)} requests in {seconds:.1f} s, {steps} traffic changes, none lost; {wide} splits outside 3 sigma")


def test_the_bound_on_splits_is_one_that_chance_keeps() -> None:
    assert (most_outside(15), most_outside(100)) == (3, 5)
