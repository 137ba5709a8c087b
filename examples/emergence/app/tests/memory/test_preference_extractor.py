"""P1.2, P1.3 : l'extraction des préférences et ses métriques."""

import pytest
from prometheus_client import REGISTRY

from backend.features.memory.preference_extractor import PreferenceExtractor, classify, normalise, speaks_of_oneself


def sample(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("message", "kind", "text"),
    [
        ("Je préfère utiliser Python pour mes projets", "preference", "utiliser python pour mes projets"),
        ("Je voudrais apprendre le piano.", "intent", "apprendre le piano"),
        ("Il faut répondre en français !", "constraint", "répondre en français"),
    ],
    ids=["préférence", "intention", "contrainte"],
)
def test_each_kind_is_extracted(message: str, kind: str, text: str) -> None:
    (found,) = PreferenceExtractor().extract(message)
    assert (found.kind, found.text) == (kind, text)


def test_the_lexical_filter_keeps_small_talk_away_from_the_classifier() -> None:
    filtered, calls = sample("memory_preferences_lexical_filtered_total"), sample("memory_preferences_llm_calls_total")
    assert not speaks_of_oneself("Quelle heure est-il ?")
    assert PreferenceExtractor().extract("Quelle heure est-il ?") == []
    assert sample("memory_preferences_lexical_filtered_total") == filtered + 1
    assert sample("memory_preferences_llm_calls_total") == calls


def test_the_same_thing_said_twice_is_normalised_to_one() -> None:
    found = normalise(classify("J'aime le  Café. Je préfère le café !"))
    assert [(one.text, one.confidence) for one in found] == [("le café", 0.9)]


def test_what_is_extracted_is_counted_by_type() -> None:
    before = sample("memory_preferences_extracted_total", type="preference")
    observed = sample("memory_preferences_confidence_count")
    PreferenceExtractor().extract("Je préfère le matin. Je préfère le thé.")
    assert sample("memory_preferences_extracted_total", type="preference") == before + 2
    assert sample("memory_preferences_confidence_count") == observed + 2
