"""Scores a model: `python -m verification.tiny_speech.score [--model FOLDER] [--sentences 200] [--save]`.

Sends held-out sentences in held-out voices through the workload, in batches, as a group does, and compares the
tokens with the reference. A sentence is right only if every token is right. ``--save`` writes
docs/figures/speech-model.json.
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
from unittest import mock

import numpy as np
import psutil
import torch
from torch import Tensor

from daybreak_server.workloads.base import Group
from daybreak_server.workloads.sessions import Prefill, Token
from daybreak_server.workloads.speech.features import SAMPLE_RATE
from daybreak_server.workloads.speech.model import Speech
from daybreak_server.workloads.speech.pages import PageTable
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
    """The workload, with the model loaded."""
    torch.set_num_threads(1)
    speech = Speech()
    speech.load(Group(options={"model": str(model)} if model else {}))
    return speech


def translate(speech: Speech, items: Sequence[Item], language: str, blocks: int) -> list[list[Written]]:
    """The output of the model for each item. Up to 32 sessions share a batch, and a turn has ``blocks`` blocks."""
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
    """The delay of each token of the correct items, in seconds of audio. The delay begins at the end of the last word
    that the token needs, and ends with the turn in which the model writes the token. For a token that needs silence,
    such as a full stop, the delay begins ``STOP_AFTER - MARGIN`` seconds after the end of the last word. The delay of a
    token never begins before the delay of the previous token."""
    right = exact(items, written, language)
    return [
        (token.turn + 1) * blocks * BLOCK_SECONDS - (due - MARGIN)
        for item, tokens, is_right in zip(items, written, right, strict=True)
        if is_right
        for token, (_, due) in zip(tokens, item.due[language], strict=True)
    ]


def sentences_right(item: Item, tokens: Sequence[int], language: str) -> tuple[int, int]:
    """How many sentences of a long session are right and in order, and how many sentences the session has."""
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


class _Recording(NamedTuple):
    tokens: list[int]
    logits: Tensor


def _recorded(speech: Speech, items: Sequence[Item], language: str) -> list[_Recording]:
    """The tokens of each item, and the logits from which they were chosen."""
    rows: dict[int, list[Tensor]] = {}
    step = speech._lm.step

    def record(tables: Sequence[PageTable], new: Sequence[Tensor]) -> Tensor:
        logits = step(tables, new)
        for table, row in zip(tables, logits, strict=True):
            rows.setdefault(id(table), []).append(row)
            kept.append(table)
        return logits

    kept: list[PageTable] = []
    with mock.patch.object(speech._lm, "step", record):
        written = _batch(speech, items, language, 2)
    return [
        _Recording([each.token for each in tokens], torch.stack(logits))
        for tokens, logits in zip(written, rows.values(), strict=True)
    ]


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
        """Count the tokens that the model writes for sounds without speech. It should write none."""
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
            self.add(
                Row(
                    f"30 s of {name}: tokens written, sum of three sessions (English, German, Chinese)",
                    tokens,
                    "tokens",
                )
            )

    def batches(self, items: Sequence[Item]) -> None:
        """Translate each item alone, and all items in one batch, and compare the tokens and the logits."""
        together = _recorded(self.speech, items, "de")
        alone = [_recorded(self.speech, [item], "de")[0] for item in items]
        equal = sum(a.tokens == b.tokens for a, b in zip(together, alone, strict=True))
        pairs = [(a.logits, b.logits) for a, b in zip(together, alone, strict=True) if a.tokens == b.tokens]
        differ = max(float((a - b).abs().max()) for a, b in pairs)
        best = torch.cat([a for a, _ in pairs]).topk(2, -1).values
        margin = float((best[:, 0] - best[:, 1]).min())
        note = f"logits differ by at most {differ:.0e}; the two best logits of a token are at least {margin:.0e} apart"
        what = f"Sessions whose tokens are the same alone and in a batch of {len(items)}"
        self.add(Row(what, equal, f"of {len(items)}", target="all", held=equal == len(items), note=note))

    def session(self, seconds: float, language: str) -> None:
        """Measure one long session, and how much the process's memory grows after about the first 30 s."""
        item = make_session(seconds, seed=11)
        pair = next(pair for pair in self.speech.shape.pairs if pair.target == language)
        size = 2 * self.speech.shape.block_samples * 2
        turns = [item.audio[at : at + size] for at in range(0, len(item.audio), size)]
        self.speech.open("long", pair)
        tokens: list[int] = []
        resident, caches = 0, 0
        for number, turn in enumerate(turns):
            answers = self.speech.prefill(
                [Prefill(session="long", audio=turn, last=number == len(turns) - 1)]
            )
            while isinstance(answers[0], Token) and answers[0].token is not None:
                tokens.append(answers[0].token)
                answers = self.speech.decode(["long"])
            caches = max(caches, self.speech.memory()[0])
            if number == 32:
                resident = psutil.Process().memory_info().rss
        grown = (psutil.Process().memory_info().rss - resident) / 1e6
        self.speech.close("long")
        right, count = sentences_right(item, tokens, language)
        note = (
            f"{right} of {count}; at most {caches / 1e3:.0f} kB of caches; the process grew by {grown:.1f} MB"
        )
        what = f"{seconds / 60:g} minutes in one session, {NAMES[language]}: sentences right"
        self.add(Row(what, 100 * right / count, "%", note=note))


ABOUT: Final = (
    "The tiny speech translator of the package, on synthetic speech (eSpeak NG). A sentence counts only if every token "
    "of it is right. Unless a row says otherwise, neither the sentences nor the voices were in the training, the turns "
    "are 0.96 s, and noise lies 12 to 35 dB below the speech. *Delay* is the audio that the client has sent since the "
    "end of the last word that a token needs; the time to compute is not in it. Human voices are untested."
)


def score(speech: Speech, sentences: int) -> Report:
    """All scores. A share with a target is measured on ``sentences`` sentences, any other share on half as many."""
    report = Report("speech-model", "Speech model", ABOUT)
    scores = _Scores(speech, report)
    items, noisy = make_items(sentences, seed=90_000), make_items(sentences, seed=50_000, noise_db=10.0)
    ends = make_items(sentences, seed=90_002, tail=0.1)
    half = sentences // 2
    for language in LANGUAGES:
        scores.share("New voices and sentences", items, language, 2, target=98.0)
        scores.share("Noise 10 dB below the speech", noisy, language, 2, target=85.0)
        scores.share("Audio that ends 0.1 s after the last word", ends[:half], language, 2)
    for language in ("de", "zh"):
        for blocks in (1, 4):
            scores.share(f"Turns of {blocks * BLOCK_SECONDS:.2f} s", items[:half], language, blocks)
    for decibels in (20.0, 5.0, 0.0):
        scores.share(
            f"Noise {decibels:.0f} dB below the speech", make_items(half, seed=5, noise_db=decibels), "de", 2
        )
    scores.share("Voices of the training", make_items(half, seed=90_001, voices=TRAIN_VOICES), "de", 2)
    for voice in ("en+whisper", "en-us-nyc"):
        scores.share(f"The voice {voice}", make_items(half, seed=51_000, voices=[voice]), "de", 2)
    scores.silence()
    scores.batches(items[:BATCH])
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
    parser.add_argument("--quick", action="store_true", help="measure only a few rows, and save no report")
    parser.add_argument(
        "--minutes", type=float, help="measure only one session into Chinese, of this many minutes"
    )
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
    if options.minutes:
        _Scores(speech, Report("session", "", "")).session(60 * options.minutes, "zh")
        return
    report = score(speech, options.sentences)
    if options.save:
        print(report.save())


if __name__ == "__main__":
    main()
