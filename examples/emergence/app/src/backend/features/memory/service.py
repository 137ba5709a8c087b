"""The memory feature as the application sees it: messages are accepted at once and analysed by the queue's workers (P1)."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final

from backend.features.memory.analyzer import MemoryAnalyzer
from backend.features.memory.embedding import Embedding
from backend.features.memory.task_queue import MemoryTaskQueue

if TYPE_CHECKING:
    from backend.features.memory.preference_extractor import PreferenceExtractor

PHASE: Final = "P1"


class MemoryService:
    """Queue, analyser and extractor, wired together; without preferences the extractor's module is never loaded."""

    def __init__(self, embedding: Embedding, *, preferences: bool = True) -> None:
        self._queue = MemoryTaskQueue(workers=2)
        self._analyzer = MemoryAnalyzer(embedding)
        self._extractor = _extractor() if preferences else None
        self._remembered: deque[str] = deque(maxlen=1000)

    @property
    def status(self) -> dict[str, int]:
        return {"waiting": self._queue.waiting, "remembered": len(self._remembered)}

    async def start(self) -> None:
        await self._queue.start()

    async def stop(self) -> None:
        await self._queue.stop()

    async def submit(self, message: str) -> None:
        """Accepts a message, and returns before it is analysed; raises Busy where too many wait."""
        self._queue.put(lambda: self.analyze_session_async(message))

    async def analyze_session_async(self, message: str) -> None:
        analysis = self._analyzer.analyze(message)
        if self._extractor is not None:
            self._remembered.extend(f"{one.kind}: {one.text} ({analysis.topic})" for one in self._extractor.extract(message))

    def clear(self) -> int:
        forgotten = self._analyzer.clear() + len(self._remembered)
        self._remembered.clear()
        return forgotten


def _extractor() -> PreferenceExtractor:
    """Loading the module is what makes its five metrics appear."""
    from backend.features.memory.preference_extractor import PreferenceExtractor

    return PreferenceExtractor()
