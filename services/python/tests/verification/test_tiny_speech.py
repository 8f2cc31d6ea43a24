"""The grammar, the alignment and the training of the tiny speech translator."""

from __future__ import annotations

import json
import random
import re
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest
import torch

from daybreak_server.workloads.speech.folder import read_folder
from verification.tiny_speech.export import export
from verification.tiny_speech.grammar import SILENCE, random_sentence
from verification.tiny_speech.lexicon import END_OF_TURN, ENGLISH, LANGUAGES, TOKENS, VOCABULARY, text_of
from verification.tiny_speech.streams import IGNORE, Streams, due_tokens, interleave
from verification.tiny_speech.train import run


def test_sentences_that_begin_alike_are_translated_alike_so_far() -> None:
    """A token that is due after the first words of a sentence must not depend on the later words."""
    rng, released = random.Random(1), {}
    for _ in range(6000):
        sentence = random_sentence(rng)
        for count in range(1, len(sentence.words) + 1):
            for language, targets in sentence.targets.items():
                due = []
                for token, needs in targets:
                    if needs == SILENCE or needs >= count:
                        break
                    due.append(token)
                key = language, tuple(sentence.words[:count])
                assert released.setdefault(key, due) == due, f"{sentence.text}: {text_of(due)}"


def test_german_words_agree_with_their_nouns() -> None:
    rng = random.Random(2)
    phrase = re.compile(
        r"\b(einen|eine|ein|den) (?:\w+ )?\w+?(er|es|en|e) (Kreis|Stern|Quadrat|Dreieck|Kugel|Blume)\b"
    )
    allowed = {
        *(("einen", "en", noun) for noun in ("Kreis", "Stern")),
        *(("den", "en", noun) for noun in ("Kreis", "Stern")),
        *(("ein", "er", noun) for noun in ("Kreis", "Stern")),
        *(("ein", "es", noun) for noun in ("Quadrat", "Dreieck")),
        *(("eine", "e", noun) for noun in ("Kugel", "Blume")),
    }
    found = set()
    for _ in range(1500):
        found |= set(phrase.findall(text_of([token for token, _ in random_sentence(rng).targets["de"]])))
    assert found == allowed


def test_tokens_are_due_in_order_and_go_into_the_turn_in_which_they_are_due() -> None:
    due = due_tokens([(10, 1), (11, 0), (12, SILENCE)], [0.3, 0.8])
    assert due == [(10, pytest.approx(0.9)), (11, pytest.approx(0.9)), (12, pytest.approx(1.2))]
    row = interleave(due, turns=3, blocks=1, language="de", embeddings=2)
    marker = LANGUAGES["de"]
    assert row.speech == [0, 1, -1, 2, 3, -1, -1, -1, 4, 5, -1, -1]
    assert row.tokens == [0, 0, marker, 0, 0, marker, 10, 11, 0, 0, marker, 12]
    end, no = END_OF_TURN, IGNORE
    assert row.labels == [no, no, end, no, no, 10, 11, end, no, no, 12, end]
    long = interleave([], turns=12, blocks=4, language="de", embeddings=6)
    assert long.starts[0] == 0
    assert long.starts[-1] == (12 - 1 - 128 // 25) * 25


def _sentences(folder: Path) -> None:
    """Write sentences to files like those of `draw.py`, with noise instead of speech."""
    rng, frames = random.Random(4), 0
    folder.mkdir()
    with (folder / "mel.1.f16").open("wb") as mels, (folder / "meta.1.jsonl").open("w") as lines:
        for _ in range(20):
            sentence = random_sentence(rng)
            count = 30 * len(sentence.words)
            np.random.default_rng(frames).standard_normal((count, 80)).astype(np.float16).tofile(mels)
            ends = [0.3 * (index + 1) for index in range(len(sentence.words))]
            words = [ENGLISH.index(word) + 1 for word in sentence.words]
            line = {"at": frames, "frames": count, "words": words, "ends": ends, "targets": sentence.targets}
            lines.write(json.dumps(line) + "\n")
            frames += count


def test_some_streams_are_noise_alone_and_no_token_is_lost(tmp_path: Path) -> None:
    _sentences(tmp_path / "data")
    streams = Streams(tmp_path / "data", 3)
    drawn = [streams._stream(600) for _ in range(120)]
    silent = [mel for mel, _, due, words in drawn if not due and not words]
    assert 1 <= len(silent) <= 20
    assert {language for _, language, _, _ in drawn} == set(LANGUAGES)
    for _, _, due, _ in drawn:
        assert [time for _, time in due] == sorted(time for _, time in due)


def test_a_checkpoint_of_the_training_becomes_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _sentences(tmp_path / "data")
    out = tmp_path / "out"
    out.mkdir()
    (out / "decay").write_text("2")
    options = Namespace(
        data=tmp_path / "data", out=out, steps=500, rate=1e-3, seconds=30, processes=1, start=None, seed=1
    )
    run(0, options, "")
    assert "20 sentences" in capsys.readouterr().out
    [checkpoint] = out.glob("step-*.safetensors")
    assert checkpoint.name == "step-00002.safetensors", "the file `decay` must set the last step"
    export(checkpoint, tmp_path / "model")
    parts = read_folder(tmp_path / "model", dtype=torch.float32, device="cpu")
    assert parts.language_model.config.vocabulary == len(VOCABULARY)
    assert parts.vocabulary.ends_segment(TOKENS["。"])
