"""Scores a model: `python -m verification.tiny_speech.score [--model FOLDER] [--sentences 200] [--save]`.

Streams held-out sentences in held-out voices through the workload, in batches, as a group does, and compares the
tokens with the reference. A sentence is right only if every token is. ``--save`` writes docs/figures/speech-model.json.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import argparse
import difflib
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import torch

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import Prefill, Token
from daybreak_server.workloads.speech.features import SAMPLE_RATE
from daybreak_server.workloads.speech.model import Speech
from verification.results import Report, Row
from verification.tiny_speech.items import Item, make_items, make_session, pcm
from verification.tiny_speech.lexicon import LANGUAGES, STOPS, TOKENS, text_of
from verification.tiny_speech.streams import BLOCK_SECONDS, MARGIN
from verification.tiny_speech.synthesis import TRAIN_VOICES

BATCH: Final = 32
NAMES: Final = {"en": "English", "de": "German", "zh": "Chinese"}


class Written(NamedTuple):
    """A token, and the turn in which it was written."""

    token: int
    turn: int


def load(model: Path | None) -> Speech:
    """The workload, ready."""
    torch.set_num_threads(1)
    speech = Speech()
    speech.load(Group(options={"model": str(model)} if model else {}))
    return speech


def translate(speech: Speech, items: Sequence[Item], language: str, blocks: int) -> list[list[Written]]:
    """What the model writes for each item, in batches of up to 32 sessions, in turns of ``blocks`` blocks."""
    written: list[list[Written]] = []
    for at in range(0, len(items), BATCH):
        written += _batch(speech, items[at : at + BATCH], language, blocks)
    return written


def _batch(speech: Speech, items: Sequence[Item], language: str, blocks: int) -> list[list[Written]]:
    pair = next(pair for pair in speech.shape.pairs if pair.target == language)
    size = blocks * speech.shape.block_samples * 2
    written: dict[str, list[Written]] = {str(number): [] for number in range(len(items))}
    for name in written:
        speech.open(name, pair)
    turn = 0
    while True:
        batch = [
            Prefill(session=name, audio=part, last=(turn + 1) * size >= len(item.audio))
            for name, item in zip(written, items, strict=True)
            if (part := item.audio[turn * size : (turn + 1) * size])
        ]
        if not batch:
            break
        answers = speech.prefill(batch)
        while answers:
            tokens = [answer for answer in answers if isinstance(answer, Token) and answer.token is not None]
            for answer in tokens:
                written[answer.session].append(Written(answer.token or 0, turn))
            answers = speech.decode([answer.session for answer in tokens]) if tokens else ()
        turn += 1
    for name in written:
        speech.close(name)
    return list(written.values())


def exact(items: Sequence[Item], written: Sequence[Sequence[Written]], language: str) -> list[bool]:
    """Whether each item has exactly the tokens of its reference."""
    return [
        [each.token for each in tokens] == item.tokens(language)
        for item, tokens in zip(items, written, strict=True)
    ]


def delays(
    items: Sequence[Item], written: Sequence[Sequence[Written]], language: str, blocks: int
) -> list[float]:
    """For each token of the items that are right: seconds of audio from the end of the last word that it needs."""
    right = exact(items, written, language)
    return [
        (token.turn + 1) * blocks * BLOCK_SECONDS - (due - MARGIN)
        for item, tokens, is_right in zip(items, written, right, strict=True)
        if is_right
        for token, (_, due) in zip(tokens, item.due[language], strict=True)
    ]


def sentences_right(item: Item, tokens: Sequence[int], language: str) -> tuple[int, int]:
    """How many sentences of a long session are right, in order, and how many there are."""
    wanted, got = _sentences(item.tokens(language)), _sentences(tokens)
    matcher = difflib.SequenceMatcher(None, wanted, got, autojunk=False)
    return sum(block.size for block in matcher.get_matching_blocks()), len(wanted)


def _sentences(tokens: Sequence[int]) -> list[tuple[int, ...]]:
    stops = {TOKENS[stop] for stop in STOPS}
    sentences: list[list[int]] = [[]]
    for token in tokens:
        sentences[-1].append(token)
        if token in stops:
            sentences.append([])
    return [tuple(sentence) for sentence in sentences if sentence]


class _Scores:
    """Adds rows to a report, and prints them as they are measured."""

    def __init__(self, speech: Speech, report: Report) -> None:
        self.speech, self.report = speech, report

    def share(
        self, what: str, items: Sequence[Item], language: str, blocks: int, target: float | None = None
    ) -> None:
        written = translate(self.speech, items, language, blocks)
        right = exact(items, written, language)
        value = 100 * sum(right) / len(right)
        late = delays(items, written, language, blocks)
        note = (
            f"{len(items)} sentences; mean delay {statistics.fmean(late):.2f} s"
            if late
            else f"{len(items)} sentences"
        )
        if target is None:
            self.add(Row(f"{what}, {NAMES[language]}", value, "%", note=note))
        else:
            row = Row(
                f"{what}, {NAMES[language]}",
                value,
                "%",
                target=f"≥ {target:g} %",
                held=value >= target,
                note=note,
            )
            self.add(row)
        wrong = [
            (item, tokens)
            for item, tokens, is_right in zip(items, written, right, strict=True)
            if not is_right
        ]
        for item, tokens in wrong[:2]:
            print(f"    wanted {item.text(language)!r}, got {text_of([each.token for each in tokens])!r}")

    def add(self, row: Row) -> None:
        self.report.add(row)
        print(f"{row.what}: {row.value:.1f} {row.unit}; {row.target} {row.note}", flush=True)

    def silence(self) -> None:
        """Sounds without speech: nothing should be written."""
        rng, samples = np.random.default_rng(3), 30 * SAMPLE_RATE
        sounds = {
            "digital silence": np.zeros(samples),
            "faint noise": rng.standard_normal(samples) * 1e-3,
            "loud noise": rng.standard_normal(samples) * 0.1,
            "a tone of 440 Hz": 0.3 * np.sin(np.arange(samples) * 2 * np.pi * 440 / SAMPLE_RATE),
        }
        for name, sound in sounds.items():
            item = Item(pcm(sound.astype(np.float32)), [], {language: [] for language in LANGUAGES})
            tokens = sum(len(translate(self.speech, [item], language, 2)[0]) for language in LANGUAGES)
            self.add(Row(f"30 s of {name}: tokens written in three languages", tokens, "tokens"))

    def session(self, seconds: float, language: str) -> None:
        """One long session."""
        item = make_session(seconds, seed=11)
        tokens = [each.token for each in translate(self.speech, [item], language, 2)[0]]
        right, count = sentences_right(item, tokens, language)
        self.add(
            Row(
                f"{seconds / 60:g} minutes in one session, {NAMES[language]}: sentences right",
                100 * right / count,
                "%",
                note=f"{right} of {count}",
            )
        )


ABOUT: Final = (
    "The tiny speech translator of the package, on synthetic speech (eSpeak NG). A sentence counts only if every token "
    "of it is right. Unless a row says otherwise, neither the sentences nor the voices were in the training, the turns "
    "are 0.96 s, and noise lies 12 to 35 dB below the speech. *Delay* is the audio that the client has sent since the "
    "end of the last word that a token needs; the time to compute is not in it. Human voices are untested."
)


def score(speech: Speech, sentences: int) -> Report:
    """All scores."""
    report = Report("speech-model", "Speech model", ABOUT)
    scores = _Scores(speech, report)
    items = make_items(sentences, seed=90_000)
    for language in LANGUAGES:
        for blocks, target in ((2, 98.0), (1, None), (4, None)):
            scores.share(
                f"New voices and sentences, turns of {blocks * BLOCK_SECONDS:.2f} s",
                items,
                language,
                blocks,
                target,
            )
    for decibels, target in ((20.0, None), (10.0, 85.0), (5.0, None), (0.0, None)):
        noisy = make_items(sentences, seed=50_000, noise_db=decibels)
        for language in LANGUAGES:
            scores.share(f"Noise {decibels:.0f} dB below the speech", noisy, language, 2, target)
    seen = make_items(sentences, seed=90_001, voices=TRAIN_VOICES)
    ends = make_items(sentences, seed=90_002, tail=0.1)
    for language in LANGUAGES:
        scores.share("Voices of the training", seen, language, 2)
        scores.share("Audio that ends 0.1 s after the last word", ends, language, 2)
    for voice in ("en+whisper", "en-us-nyc"):
        scores.share(f"The voice {voice}", make_items(sentences // 2, seed=51_000, voices=[voice]), "de", 2)
    scores.silence()
    for language in LANGUAGES:
        scores.session(180, language)
    return report


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path)
    parser.add_argument("--sentences", type=int, default=200)
    parser.add_argument("--quick", action="store_true", help="only new voices and sentences, turns of 0.96 s")
    parser.add_argument("--save", action="store_true")
    options: Any = parser.parse_args()
    speech = load(options.model)
    if options.quick:
        scores, items = _Scores(speech, Report("quick", "", "")), make_items(options.sentences, seed=1)
        for language in LANGUAGES:
            scores.share("New voices and sentences", items, language, 2)
        ends = make_items(options.sentences, seed=2, tail=0.1, noise_db=10.0)
        scores.share("Noise at 10 dB, the audio ends 0.1 s after the last word", ends, "de", 2)
        return
    report = score(speech, options.sentences)
    if options.save:
        print(report.save())


if __name__ == "__main__":
    main()
