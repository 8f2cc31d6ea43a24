"""Tests that the training of the tiny model runs, stops, resumes, and writes a folder that can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")

import torch


@pytest.mark.heavy
def test_a_resumed_training_continues_with_the_same_codec(tmp_path: Path) -> None:
    """A resumed training keeps the codec, adds steps to those of the first run, and exports the averaged weights."""
    pytest.importorskip("diffusers")  # here, because its import takes seconds in each process
    from verification.tiny_wan.score import TinyModel
    from verification.tiny_wan.train import STATE, Recipe, train

    short = {"workers": 1, "clips_per_subject": 1, "batch": 2, "score_last": 60}
    train(Recipe(seconds=0.5, **short), tmp_path, resume=False)
    first = torch.load(tmp_path / STATE, weights_only=True)
    further = first["progress"]["elapsed"] + 1.0
    train(Recipe(seconds=further, **short), tmp_path, resume=True)
    second = torch.load(tmp_path / STATE, weights_only=True)

    assert second["progress"]["step"] > first["progress"]["step"] > 0
    assert torch.equal(first["codec"]["basis"], second["codec"]["basis"])
    assert any(not torch.equal(a, b) for a, b in zip(first["average"], second["average"], strict=True))
    loaded = TinyModel.load(tmp_path / "model")
    for weight, average in zip(loaded.transformer.parameters(), second["average"], strict=False):
        torch.testing.assert_close(weight, average.bfloat16().float(), rtol=0, atol=0)
