"""Phase 3 : le petit modèle d'embedding."""

from pathlib import Path

from backend.features.memory.embedding import Embedding, vector


def test_a_vector_has_length_one_and_an_empty_text_has_none() -> None:
    assert abs(sum(x * x for x in vector("Python")) - 1) < 1e-9
    assert not any(vector(""))


def test_the_nearest_topic_is_found() -> None:
    model = Embedding.build()
    assert model.topic("utiliser Python pour coder") == "langages"
    assert model.topic("qqq") == "divers"


def test_the_saved_model_is_the_built_one(tmp_path: Path) -> None:
    Embedding.build().save(tmp_path / "models" / "embedding.json")
    assert Embedding.load(tmp_path / "models" / "embedding.json") == Embedding.build()
