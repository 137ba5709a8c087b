"""PreferenceExtractor: preferences, intents and constraints found in a message, with five metrics (P1.2, P1.3).

The pipeline has three stages: a lexical filter, a classifier, a normalisation. The classifier stands where the product
calls a language model. In this sample it is a handful of rules, and says so: no model is called, nothing leaves the process.
"""

import re
from dataclasses import dataclass
from typing import Final

from prometheus_client import Counter, Histogram

EXTRACTED = Counter("memory_preferences_extracted_total", "Preferences, intents and constraints found.", ["type"])
CONFIDENCE = Histogram("memory_preferences_confidence", "Confidence of what was found.", buckets=(0.2, 0.4, 0.6, 0.8, 1.0))
DURATION = Histogram("memory_preferences_extraction_duration_seconds", "Duration of an extraction.")
FILTERED = Counter("memory_preferences_lexical_filtered_total", "Messages that the lexical filter left out.")
LLM_CALLS = Counter("memory_preferences_llm_calls_total", "Calls of the classifier (rules in this sample).")

SIGNALS: Final = re.compile(
    r"\b(préf[eéè]r\w*|aime\w*|adore\w*|déteste\w*|veux|voudrais|souhaite\w*|compte|vais|dois|faut|jamais|toujours|évite\w*"
    r"|sans|prefer|like|love|want|plan|must|never|always|avoid)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Rule:
    """A phrase, what it announces, and how sure that is."""

    kind: str
    confidence: float
    pattern: re.Pattern[str]


def _rule(kind: str, confidence: float, phrases: str) -> Rule:
    return Rule(kind, confidence, re.compile(rf"\b(?:{phrases})\s+(?P<what>[^.!?;\n]+)", re.IGNORECASE))


RULES: Final = (
    _rule("constraint", 0.9, "il faut|je dois|jamais|toujours|évite(?:r|z)?|i must|never|always|avoid"),
    _rule("preference", 0.9, "je préfère|i prefer"),
    _rule("preference", 0.7, "j['’ ]aime|j['’ ]adore|je déteste|i like|i love"),
    _rule("intent", 0.8, "je veux|je voudrais|je souhaite|je compte|je vais|i want to|i plan to"),
)


@dataclass(frozen=True)
class Preference:
    """One thing that a message says about its author."""

    kind: str
    text: str
    confidence: float


def speaks_of_oneself(message: str) -> bool:
    """The lexical filter: cheap, and right to say no to most messages."""
    return SIGNALS.search(message) is not None


def classify(message: str) -> list[Preference]:
    """The classifier: every sentence is given to the first rule that knows it."""
    found = []
    for sentence in re.split(r"(?<=[.!?;\n])\s*", message):
        for rule in RULES:
            match = rule.pattern.search(sentence)
            if match:
                found.append(Preference(rule.kind, match["what"], rule.confidence))
                break
    return found


def normalise(found: list[Preference]) -> list[Preference]:
    """The same words in the same form, each thing once, the surest kept."""
    best: dict[tuple[str, str], Preference] = {}
    for one in found:
        text = " ".join(one.text.split()).strip(" ,.:").casefold()
        known = best.get((one.kind, text))
        if text and (known is None or known.confidence < one.confidence):
            best[one.kind, text] = Preference(one.kind, text, one.confidence)
    return list(best.values())


class PreferenceExtractor:
    """The whole pipeline, counted."""

    def extract(self, message: str) -> list[Preference]:
        with DURATION.time():
            if not speaks_of_oneself(message):
                FILTERED.inc()
                return []
            LLM_CALLS.inc()
            preferences = normalise(classify(message))
        for preference in preferences:
            EXTRACTED.labels(type=preference.kind).inc()
            CONFIDENCE.observe(preference.confidence)
        return preferences
