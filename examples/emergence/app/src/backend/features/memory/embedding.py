"""A tiny embedding model: hashed character trigrams, and the topic whose centre is nearest."""

import json
import math
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DIMENSIONS: Final = 512
SEEDS: Final[Mapping[str, str]] = {
    "langages": "python typescript javascript java rust langage programmer programmation code coder",
    "projets": "projet projets livraison équipe planning tâche tâches objectif jalon roadmap",
    "horaires": "matin soir heure heures réunion demain semaine lundi mardi calendrier",
    "style": "court longue concise détaillé ton formel simple exemples réponse réponses",
    "données": "base données sqlite postgres fichier document documents export import",
    "santé": "sport sommeil repas marche repos santé bien-être courir",
}

Vector = tuple[float, ...]


def vector(text: str) -> Vector:
    """The unit vector of a text; the zero vector of an empty one."""
    counts = [0.0] * DIMENSIONS
    for word in text.casefold().split():
        padded = f" {word} "
        for start in range(len(padded) - 2):
            counts[zlib.crc32(padded[start : start + 3].encode()) % DIMENSIONS] += 1.0
    length = math.sqrt(sum(count * count for count in counts))
    return tuple(count / length for count in counts) if length else tuple(counts)


@dataclass(frozen=True)
class Embedding:
    """The centres of the topics."""

    centres: Mapping[str, Vector]

    @classmethod
    def build(cls) -> "Embedding":
        return cls({topic: tuple(round(x, 6) for x in vector(words)) for topic, words in SEEDS.items()})

    @classmethod
    def load(cls, path: Path) -> "Embedding":
        """The model that the image carries; a checkout without one builds the same in memory."""
        if not path.is_file():
            return cls.build()
        centres = json.loads(path.read_text(encoding="utf-8"))
        return cls({topic: tuple(centre) for topic, centre in centres.items()})

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.centres, ensure_ascii=False, sort_keys=True), encoding="utf-8")

    def topic(self, text: str) -> str:
        """The nearest topic, or `divers` where none is near."""
        point = vector(text)
        best, nearness = "divers", 0.25
        for topic, centre in self.centres.items():
            cosine = sum(a * b for a, b in zip(point, centre, strict=True))
            if cosine > nearness:
                best, nearness = topic, cosine
        return best


if __name__ == "__main__":
    target = Path(sys.argv[1])
    Embedding.build().save(target)
    print(f"Embedding model generated: {len(SEEDS)} topics x {DIMENSIONS} dimensions, {target.stat().st_size / 1000:.1f} kB")
