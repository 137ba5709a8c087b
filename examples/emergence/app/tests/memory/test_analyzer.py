"""Phase 3 : l'analyse et son cache."""

import pytest

from backend.features.memory.analyzer import HITS, MISSES, SIZE, MemoryAnalyzer
from backend.features.memory.embedding import Embedding


def analyzer(**settings: object) -> MemoryAnalyzer:
    return MemoryAnalyzer(Embedding.build(), **settings)  # type: ignore[arg-type]


def value(metric: object) -> float:
    return float(metric._value.get())  # type: ignore[attr-defined]


def test_a_long_message_is_summarised() -> None:
    analysis = analyzer().analyze("mot " * 20)
    assert analysis.summary == "mot " * 12 + "…"
    assert analysis.words == 20


def test_the_same_message_is_answered_from_the_cache() -> None:
    one, hits, misses = analyzer(), value(HITS), value(MISSES)
    assert one.analyze("bonjour  à tous") is one.analyze("bonjour à tous")
    assert (value(HITS) - hits, value(MISSES) - misses) == (1, 1)


def test_an_old_analysis_is_made_again() -> None:
    now = [0.0]
    one, misses = analyzer(lifetime=10.0, clock=lambda: now[0]), value(MISSES)
    one.analyze("bonjour")
    now[0] = 11.0
    one.analyze("bonjour")
    assert value(MISSES) - misses == 2


def test_the_cache_has_a_size_that_the_metric_shows() -> None:
    one = analyzer(capacity=2)
    for message in ("un", "deux", "trois"):
        one.analyze(message)
    assert value(SIZE) == 2
    assert one.clear() == 2
    assert value(SIZE) == 0


@pytest.fixture(autouse=True)
def _empty() -> None:
    SIZE.set(0)
