"""The program of ``make demo-embed`` runs to its end. The test gives it fewer sentences."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from testkit.text_models import minilm, needs_sentence_transformers

needs_sentence_transformers()
pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
DEMO = Path(__file__).parents[4] / "examples" / "embed_demo.py"


def test_the_demo_embeds_finds_the_nearest_sentences_and_ranks_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    minilm()  # skips the test if the model is missing
    spec = importlib.util.spec_from_file_location("embed_demo", DEMO)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    monkeypatch.setattr(demo, "SENTENCES", demo.SENTENCES[:100])
    demo.main()
    shown = capsys.readouterr().out
    assert re.search(r"█ +100 sentences", shown)
    embedding, nearest, ranked = re.split(r"\nNearest to .*:\n|\nRanked by .*:\n", shown)
    batches = re.findall(r"^ +(\d+) ▇+ (\d+)$", embedding, re.MULTILINE)
    assert sum(int(size) * int(count) for size, count in batches) == 101, "100 sentences, and one to warm up"
    found = [re.findall(r"^  (\S+)  (.+)$", part, re.MULTILINE) for part in (nearest, ranked)]
    assert sorted(text for _, text in found[0]) == sorted(text for _, text in found[1])
    for rows in found:
        scores = [float(score) for score, _ in rows]
        assert len(scores) == 5
        assert scores == sorted(scores, reverse=True)
    assert "snowy evening" in found[0][0][1], "the question is about the cold"
