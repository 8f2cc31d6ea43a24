"""Audio of spoken sentences, as a client would stream it, with the expected texts.

``score`` and ``clips`` use this module.
"""

from __future__ import annotations

import random
from typing import NamedTuple

import numpy as np

from daybreak_server.workloads.speech.features import SAMPLE_RATE
from verification.tiny_speech.grammar import Sentence, random_sentence
from verification.tiny_speech.lexicon import LANGUAGES, text_of
from verification.tiny_speech.streams import Due, due_tokens
from verification.tiny_speech.synthesis import HELD_OUT_VOICES, TRAIN_VOICES, Floats, Synthesiser


class Item(NamedTuple):
    """Audio as 16-bit PCM, its English sentences, and for each language the expected tokens with the time when each is
    due."""

    audio: bytes
    english: list[str]
    due: dict[str, list[Due]]

    def tokens(self, language: str) -> list[int]:
        """The tokens of the reference in a language."""
        return [token for token, _ in self.due[language]]

    def text(self, language: str) -> str:
        """The reference as text."""
        return text_of(self.tokens(language))


def make_items(
    count: int,
    *,
    seed: int,
    voices: list[str] = HELD_OUT_VOICES,
    held_out: bool = True,
    noise_db: float | None = None,
    tail: float = 0.6,
) -> list[Item]:
    """Single sentences, each after 0.1 to 1 s without speech. ``noise_db`` is the signal-to-noise ratio in dB. ``None``
    means 12 to 35 dB, drawn at random for each sentence.

    The audio ends ``tail`` seconds after the last word.
    """
    synthesiser = Synthesiser()
    made: list[Item] = []
    rng, numbers = random.Random(seed), np.random.default_rng(seed)
    while len(made) < count:
        sentence = random_sentence(rng)
        if sentence.held_out != held_out:
            continue
        speech = synthesiser.say(
            sentence.words, rng.choice(voices), rng.randint(120, 200), rng.randint(25, 75)
        )
        if speech is None:
            continue
        lead = int(rng.uniform(0.1, 1.0) * SAMPLE_RATE)
        loud = speech.samples / np.abs(speech.samples).max() * 0.7
        samples = np.pad(loud, (lead, int(tail * SAMPLE_RATE))).astype(np.float32)
        ends = [(end + lead) / SAMPLE_RATE for end in speech.word_ends]
        noisy = with_noise(samples, numbers, numbers.uniform(12, 35) if noise_db is None else noise_db)
        made.append(
            Item(pcm(noisy * 10 ** (numbers.uniform(-15, 0) / 20)), [sentence.text], _due(sentence, ends))
        )
    return made


def make_session(
    seconds: float, *, seed: int, held_out: bool = True, pauses: tuple[float, float] = (0.6, 1.4)
) -> Item:
    """Many sentences in one session, each in a voice drawn at random."""
    synthesiser, rng = Synthesiser(), random.Random(seed)
    samples = np.zeros(int(seconds * SAMPLE_RATE), np.float32)
    at, english = int(0.4 * SAMPLE_RATE), []
    due: dict[str, list[Due]] = {language: [] for language in LANGUAGES}
    while True:
        sentence = random_sentence(rng)
        if sentence.held_out != held_out:
            continue
        voice = rng.choice(HELD_OUT_VOICES if held_out else TRAIN_VOICES)
        speech = synthesiser.say(sentence.words, voice, rng.randint(120, 200), rng.randint(25, 75))
        if speech is None:
            continue
        if at + len(speech.samples) + SAMPLE_RATE > len(samples):
            break
        samples[at : at + len(speech.samples)] = speech.samples / np.abs(speech.samples).max() * 0.7
        for language, tokens in _due(
            sentence, [(end + at) / SAMPLE_RATE for end in speech.word_ends]
        ).items():
            due[language] += tokens
        english.append(sentence.text)
        at += len(speech.samples) + int(rng.uniform(*pauses) * SAMPLE_RATE)
    return Item(pcm(with_noise(samples, np.random.default_rng(seed), 25.0)), english, due)


def _due(sentence: Sentence, word_ends: list[float]) -> dict[str, list[Due]]:
    return {language: due_tokens(targets, word_ends) for language, targets in sentence.targets.items()}


def with_noise(samples: Floats, rng: np.random.Generator, decibels: float) -> Floats:
    """Add noise of a random colour. ``decibels``: the signal-to-noise ratio."""
    spectrum = np.fft.rfft(rng.standard_normal(len(samples)))
    corner = 800 * len(samples) / (40 * SAMPLE_RATE)
    noise = np.fft.irfft(
        spectrum / np.maximum(np.arange(len(spectrum)), corner) ** rng.choice([0, 0.5, 1.0]), len(samples)
    )
    level = np.sqrt(np.mean(samples[np.abs(samples) > 0.01] ** 2)) * 10 ** (-decibels / 20)
    return (samples + noise / noise.std() * level).astype(np.float32)


def pcm(samples: Floats) -> bytes:
    """16-bit PCM."""
    return (np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes()
