"""The workload ``embed`` from a client to the model: every form of a request, and every error."""

from __future__ import annotations

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from testkit.text_models import minilm, sentence, tiny_encoder

Start = Callable[..., Any]


def vectors(answer: dict[str, Any]) -> np.ndarray:
    assert [each["index"] for each in answer["data"]] == list(range(len(answer["data"])))
    return np.array([each["embedding"] for each in answer["data"]])


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "tiny", prompts={"query": "query : "})


def test_a_real_model_embeds_over_http(start_whole: Start) -> None:
    folder = minilm()
    whole = start_whole({"vectors": {"workload": "embed", "model": str(folder)}})
    texts = ["How do I bake bread?", "Flour, water, yeast and salt.", "The stock market fell."]
    answer = whole.post("/v1/embeddings", input=texts, model="vectors")
    found = vectors(answer)
    assert found.shape == (3, 384)
    assert np.allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert found[0] @ found[1] > found[0] @ found[2] + 0.2
