"""P1.1 : la file de tâches."""

import asyncio
import logging

import pytest

from backend.features.memory.task_queue import MemoryTaskQueue


def test_two_workers_do_what_is_put(caplog: pytest.LogCaptureFixture) -> None:
    done: list[int] = []

    async def story() -> None:
        queue = MemoryTaskQueue(workers=2)
        await queue.start()
        for number in range(5):

            async def work(number: int = number) -> None:
                done.append(number)

            queue.put(work)
        await queue.stop()

    with caplog.at_level(logging.INFO):
        asyncio.run(story())
    assert sorted(done) == [0, 1, 2, 3, 4]
    assert caplog.messages[:3] == ["MemoryTaskQueue started with 2 workers", "Worker 0 started", "Worker 1 started"]
    assert caplog.messages[-1] == "MemoryTaskQueue stopped"


def test_a_failing_task_does_not_end_its_worker() -> None:
    done: list[str] = []

    async def bad() -> None:
        raise ValueError("bad")

    async def good() -> None:
        done.append("good")

    async def story() -> None:
        queue = MemoryTaskQueue(workers=1)
        await queue.start()
        queue.put(bad)
        queue.put(good)
        await queue.stop()

    asyncio.run(story())
    assert done == ["good"]
