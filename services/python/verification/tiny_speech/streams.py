"""Training examples: streams of many sentences with pauses and noise, cut into turns.

A model that was trained on single sentences fails at the second sentence of a session, so every example is a
stream. Some streams have no speech, and so no tokens.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch
from torch import Tensor

from daybreak_server.workloads.speech.encoder import EncoderConfig
from daybreak_server.workloads.speech.features import (
    BANDS,
    FLOOR,
    HOP,
    MEAN,
    OVERLAP,
    SAMPLE_RATE,
    SCALE,
    log_mel,
)
from daybreak_server.workloads.speech.window import first_visible
from verification.tiny_speech.grammar import SILENCE
from verification.tiny_speech.lexicon import END_OF_TURN, LANGUAGES
from verification.tiny_speech.synthesis import Floats

BLOCK_SECONDS: Final = 0.48
MARGIN: Final = 0.10
"""A token is due this long after the last word that it needs has ended."""
STOP_AFTER: Final = 0.40
"""A token that needs silence, such as the full stop, is due this long after the last word has ended."""
WINDOW: Final = 128
IGNORE: Final = -100
_LOG_FLOOR = math.log(FLOOR)
_PER_DECIBEL = math.log(10) / 10

Due = tuple[int, float]
"""A token and the second at which it is due."""


def due_tokens(targets: Sequence[Sequence[int]], word_ends: Sequence[float]) -> list[Due]:
    """When each token is due: after the word or the silence that it needs, and never before the preceding token."""
    time, due = 0.0, []
    for token, needs in targets:
        time = max(time, word_ends[-1] + STOP_AFTER if needs == SILENCE else word_ends[needs] + MARGIN)
        due.append((token, time))
    return due


class Row(NamedTuple):
    """One stream as the language model reads it. Each list has one entry per position."""

    speech: list[int]
    """The index of the speech embedding at the position; -1 if the position has a token."""
    tokens: list[int]
    labels: list[int]
    starts: list[int]
    """For each position, the first position to which it attends."""


def interleave(due: Sequence[Due], turns: int, blocks: int, language: str, embeddings: int) -> Row:
    """Arrange a stream as ``turns`` turns of ``blocks`` blocks.

    Each turn has its speech, the language, and the tokens that are due by the end of the turn. Tokens that are due only
    after the last turn are left out.
    """
    row, number = Row([], [], [], []), 0
    lengths: list[int] = []
    for turn in range(turns):
        now = []
        while number < len(due) and due[number][1] <= (turn + 1) * blocks * BLOCK_SECONDS + 1e-6:
            now.append(due[number][0])
            number += 1
        speech = range(turn * blocks * embeddings, (turn + 1) * blocks * embeddings)
        length, text = len(speech) + 1 + len(now), len(now) + 1
        start = sum(lengths[: first_visible(lengths, WINDOW)])
        row.speech.extend([*speech, *([-1] * text)])
        row.tokens.extend([*([0] * len(speech)), LANGUAGES[language], *now])
        row.labels.extend([*([IGNORE] * len(speech)), *now, END_OF_TURN])
        row.starts.extend([start] * length)
        lengths.append(length)
    return row


class Batch(NamedTuple):
    """The input of a training step."""

    mel: Tensor
    speech: Tensor
    tokens: Tensor
    labels: Tensor
    starts: Tensor
    words: Tensor
    word_counts: Tensor


class Streams:
    """Draws streams from the sentences in a folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self._rng = np.random.default_rng(seed)
        self.items: list[tuple[Any, dict[str, Any]]] = []
        for lines in sorted(folder.glob("meta.*.jsonl")):
            name = lines.name.replace("meta", "mel").replace("jsonl", "f16")
            mel = np.memmap(folder / name, np.float16, "r").reshape(-1, BANDS)
            self.items += [(mel, json.loads(line)) for line in lines.read_text().splitlines()]
        self._noises = [_noise(tilt) for tilt in (0.0, 0.5, 1.0, 1.5)]
        self._config = EncoderConfig()

    def _stream(self, frames: int) -> tuple[Floats, str, list[Due], list[int]]:
        """Draw a stream. Returns its log power, its target language, its tokens with their due times, and its words."""
        rng = self._rng
        mel = np.full((frames, BANDS), _LOG_FLOOR, np.float32)
        language = str(rng.choice(["en", "de", "zh"], p=[0.24, 0.38, 0.38]))
        due: list[Due] = []
        words: list[int] = []
        gain, at = 0.0, int(rng.uniform(0, 100))
        silent = rng.random() < 0.04
        while not silent:
            source, item = self.items[rng.integers(len(self.items))]
            if item["frames"] > frames:
                continue
            if at + item["frames"] > frames:
                if due:
                    break
                at = max(0, min(at, frames - item["frames"]))
            gain = rng.uniform(-20, 0) * _PER_DECIBEL if rng.random() < 0.6 else gain
            part = source[item["at"] : item["at"] + item["frames"]]
            mel[at : at + item["frames"]] = np.asarray(part, np.float32) * SCALE + MEAN + gain
            seconds = at * HOP / SAMPLE_RATE
            due += [
                (token, time + seconds) for token, time in due_tokens(item["targets"][language], item["ends"])
            ]
            words += item["words"]
            at += item["frames"] + int(rng.uniform(55, 160) if rng.random() < 0.9 else rng.uniform(160, 400))
            if rng.random() < 0.1:
                break
        return self._with_noise(mel, gain, silent), language, due, words

    def _with_noise(self, mel: Floats, gain: float, silent: bool) -> Floats:
        """Add the power of a noise (to most streams), normalise, and hide two ranges of bands (in half of the streams).

        Some noises begin or end inside the stream, because a session may begin or end with digital silence.
        """
        rng = self._rng
        if rng.random() < 0.85:
            noise = self._noises[rng.integers(len(self._noises))]
            start = rng.integers(len(noise) - len(mel))
            below = rng.uniform(0, 60) if silent else rng.uniform(5, 45)
            level = 2 * math.log(0.08) + gain - below * _PER_DECIBEL
            noisy = np.logaddexp(mel, noise[start : start + len(mel)] + np.float32(level))
            first, last = 0, len(mel)
            if rng.random() < 0.15:
                first = int(rng.uniform(0, 100))
            if rng.random() < 0.15:
                last -= int(rng.uniform(0, 120))
            mel[first:last] = noisy[first:last]
        mel = (np.maximum(mel, _LOG_FLOOR) - MEAN) / SCALE
        if rng.random() < 0.5:
            for _ in range(2):
                first = rng.integers(0, 70)
                mel[:, first : first + rng.integers(1, 10)] = mel.mean()
        return mel

    def batch(self, streams: int, seconds: float, blocks: int) -> Batch:
        """Draw ``streams`` streams of about ``seconds`` seconds each, in turns of ``blocks`` blocks."""
        turns = max(1, round(seconds / (blocks * BLOCK_SECONDS)))
        frames = turns * blocks * self._config.block_frames
        mels, words, rows = [], [], []
        for _ in range(streams):
            mel, language, due, spoken = self._stream(frames)
            mels.append(mel)
            words.append(spoken)
            rows.append(interleave(due, turns, blocks, language, self._config.block_embeddings))
        speech, tokens, labels, starts = (
            _padded([row[part] for row in rows], filler) for part, filler in enumerate((-1, 0, IGNORE, 0))
        )
        spoken_words = torch.tensor(list(chain.from_iterable(words)), dtype=torch.long)
        counts = torch.tensor([len(spoken) for spoken in words])
        return Batch(torch.from_numpy(np.stack(mels)), speech, tokens, labels, starts, spoken_words, counts)


def _padded(rows: Sequence[list[int]], filler: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [filler] * (longest - len(row)) for row in rows])


def _noise(tilt: float) -> Floats:
    """The log power of forty seconds of noise with unit power. A ``tilt`` of 0 gives white noise, 0.5 pink, 1 brown."""
    spectrum = np.fft.rfft(np.random.default_rng(0).standard_normal(SAMPLE_RATE * 40))
    samples = np.fft.irfft(spectrum / np.maximum(np.arange(len(spectrum)), 800) ** tilt)
    unit = torch.from_numpy(np.pad(samples / samples.std(), (OVERLAP, 0)).astype(np.float32))
    power: Floats = (log_mel(unit) * SCALE + MEAN).numpy()
    return power
