"""The memory feature as the application sees it: a message is analysed while its request waits (Phase 3)."""

from typing import Final

from backend.features.memory.analyzer import MemoryAnalyzer
from backend.features.memory.embedding import Embedding

PHASE: Final = "3"


class MemoryService:
    """The analyser alone; preferences come with P1."""

    def __init__(self, embedding: Embedding, *, preferences: bool = False) -> None:
        self._analyzer = MemoryAnalyzer(embedding)

    @property
    def status(self) -> dict[str, int]:
        return {"waiting": 0, "remembered": 0}

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    async def submit(self, message: str) -> None:
        """Analyses a message before it returns."""
        self._analyzer.analyze(message)

    def clear(self) -> int:
        return self._analyzer.clear()
