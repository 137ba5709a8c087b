"""MemoryAnalyzer: the summary and the topic of a message, kept in a cache with three metrics (Phase 3)."""

import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Gauge

from backend.features.memory.embedding import Embedding

VERSION: Final = "V3.4"
SUMMARY_WORDS: Final = 12

HITS = Counter("memory_analysis_cache_hits_total", "Analyses answered from the cache.")
MISSES = Counter("memory_analysis_cache_misses_total", "Analyses that had to be made.")
SIZE = Gauge("memory_analysis_cache_size", "Analyses in the cache.")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Analysis:
    """What a message is about."""

    summary: str
    topic: str
    words: int


class MemoryAnalyzer:
    """Analyses messages, the least recently used ones forgotten first."""

    def __init__(
        self,
        embedding: Embedding,
        *,
        capacity: int = 256,
        lifetime: float = 600.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._embedding = embedding
        self._capacity = capacity
        self._lifetime = lifetime
        self._clock = clock
        self._cache: OrderedDict[str, tuple[float, Analysis]] = OrderedDict()
        log.info("MemoryAnalyzer %s initialise", VERSION)

    def analyze(self, message: str) -> Analysis:
        """The analysis of a message, from the cache where it is young enough."""
        key = " ".join(message.split())
        now = self._clock()
        kept = self._cache.get(key)
        if kept is not None and now - kept[0] < self._lifetime:
            self._cache.move_to_end(key)
            HITS.inc()
            return kept[1]
        MISSES.inc()
        words = key.split()
        summary = " ".join(words[:SUMMARY_WORDS]) + (" …" if len(words) > SUMMARY_WORDS else "")
        analysis = Analysis(summary, self._embedding.topic(key), len(words))
        self._cache[key] = (now, analysis)
        self._cache.move_to_end(key)
        while len(self._cache) > self._capacity:
            self._cache.popitem(last=False)
        SIZE.set(len(self._cache))
        return analysis

    def clear(self) -> int:
        """Forgets everything; says how much that was."""
        forgotten = len(self._cache)
        self._cache.clear()
        SIZE.set(0)
        return forgotten
