"""Renders the clips that the speech workload ships with: `python -m verification.tiny_speech.clips`.

The clips are three held-out sentences in held-out voices, with faint noise, as WAV files. A JSON file has their words
and the expected text in each language. eSpeak NG generates the WAV files, which contain no part of eSpeak NG itself.
"""

from __future__ import annotations

import json
import random
import wave
from pathlib import Path
from typing import Final

import numpy as np

from daybreak_server.workloads.speech.clips import CLIPS
from daybreak_server.workloads.speech.features import SAMPLE_RATE
from verification.tiny_speech.grammar import Sentence, random_sentence
from verification.tiny_speech.items import pcm, with_noise
from verification.tiny_speech.lexicon import text_of
from verification.tiny_speech.synthesis import Synthesiser

_VOICES: Final = ("en-gb-x-rp", "en-us+m5", "en-us+f3")


def _chosen(seed: int) -> list[Sentence]:
    """Three held-out sentences of 7 to 13 words: one with *then*, one with *show me … moving*, and one with *and*."""
    rng = random.Random(seed)
    tests = (
        lambda words: "then" in words,
        lambda words: words[0] == "show" and "moving" in words,
        lambda words: "and" in words and words[0] != "show",
    )
    chosen: list[Sentence] = []
    while len(chosen) < len(tests):
        sentence = random_sentence(rng)
        if sentence.held_out and 7 <= len(sentence.words) <= 13 and tests[len(chosen)](sentence.words):
            chosen.append(sentence)
    return chosen


def render(folder: Path, seed: int = 17) -> None:
    """Write the clips."""
    folder.mkdir(parents=True, exist_ok=True)
    synthesiser, numbers, entries = Synthesiser(), np.random.default_rng(seed), []
    for number, (sentence, voice) in enumerate(zip(_chosen(seed), _VOICES, strict=True), 1):
        speech = synthesiser.say(sentence.words, voice, 150, 50)
        if speech is None:
            raise RuntimeError(f"eSpeak NG merges words of {sentence.text!r}; choose another seed")
        loud = speech.samples / np.abs(speech.samples).max() * 0.6
        samples = np.pad(loud, (SAMPLE_RATE // 3, SAMPLE_RATE // 2)).astype(np.float32)
        file = f"sentence-{number}.wav"
        with wave.open(str(folder / file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(SAMPLE_RATE)
            out.writeframes(pcm(with_noise(samples, numbers, 35.0)))
        references = {
            language: text_of([token for token, _ in targets])
            for language, targets in sentence.targets.items()
        }
        entries.append({"file": file, "voice": voice, "spoken": sentence.text, "references": references})
    text = json.dumps(entries, ensure_ascii=False, indent=1)
    (folder / "clips.json").write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    render(CLIPS)
