"""MemoryTaskQueue: work that a request need not wait for, done by asyncio workers (P1.1)."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from backend.features.memory import Busy

Work = Callable[[], Awaitable[None]]

log = logging.getLogger(__name__)


class MemoryTaskQueue:
    """A bounded queue and its workers; a piece of work that fails is logged, and the worker goes on."""

    def __init__(self, workers: int = 2, capacity: int = 1000) -> None:
        self._workers = workers
        self._capacity = capacity
        self._queue: asyncio.Queue[Work] = asyncio.Queue(capacity)
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def waiting(self) -> int:
        return self._queue.qsize()

    async def start(self) -> None:
        self._queue = asyncio.Queue(self._capacity)
        log.info("MemoryTaskQueue started with %d workers", self._workers)
        self._tasks = [asyncio.create_task(self._run(number)) for number in range(self._workers)]
        await asyncio.sleep(0)

    def put(self, work: Work) -> None:
        """Accepts the work; raises Busy where the queue is full."""
        try:
            self._queue.put_nowait(work)
        except asyncio.QueueFull:
            raise Busy(f"{self._capacity} tasks are waiting already") from None

    async def join(self) -> None:
        """Returns when all that was put is done."""
        await self._queue.join()

    async def stop(self, within: float = 5.0) -> None:
        """Finishes what waits, for a while; then ends the workers."""
        try:
            await asyncio.wait_for(self._queue.join(), within)
        except TimeoutError:
            log.warning("MemoryTaskQueue stopped with %d tasks undone", self.waiting)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks = []
        log.info("MemoryTaskQueue stopped")

    async def _run(self, number: int) -> None:
        log.info("Worker %d started", number)
        try:
            while True:
                work = await self._queue.get()
                try:
                    await work()
                except Exception:
                    log.exception("Worker %d: a memory task failed", number)
                finally:
                    self._queue.task_done()
        finally:
            log.info("Worker %d stopped", number)
