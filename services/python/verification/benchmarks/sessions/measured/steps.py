"""How long a step of the tiny speech model takes, by the number of sessions in the step."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from daybreak_server.domain.sessions import SAMPLE_RATE
from daybreak_server.workloads.sessions import Prefill, StepResult, Token
from daybreak_server.workloads.speech.model import Speech
from verification.benchmarks.sessions.costs import Costs
from verification.benchmarks.sessions.measured.speakers import Speaker, speakers

SIZES = (1, 2, 4, 8, 16, 32)
LARGEST = SIZES[-1]
SESSIONS = 3 * LARGEST
"""When this many sessions have prefilled a turn, at least ``LARGEST`` of them need to decode."""
FILL_TURNS = 12
"""Turns before the first measurement, so that all windows are full."""
PREFILLS, DECODES = 8, 24
"""How many sessions prefill, and how many decode, in a step of both phases."""
Answers = Sequence[StepResult]
K = TypeVar("K")


@dataclass(frozen=True, slots=True, kw_only=True)
class MixedCosts:
    """The median milliseconds for ``PREFILLS`` sessions that prefill and ``DECODES`` sessions that decode."""

    together: float
    """In one step."""
    apart: float
    """In two steps, one of each phase."""


def measure(model: Speech, *, rounds: int) -> Costs:
    """The median duration of the batches of each size. In each round, all sessions have one turn for each size."""
    turns = FILL_TURNS + rounds * len(SIZES)
    prefills: dict[int, list[float]] = {size: [] for size in SIZES}
    decodes: dict[int, list[float]] = {size: [] for size in SIZES}
    with _speaking(model, turns) as users:
        for turn in range(turns):
            if turn < FILL_TURNS:
                _turn(model, users, turn, LARGEST, [], [])
            else:
                size = SIZES[turn % len(SIZES)]
                _turn(model, users, turn, size, prefills[size], decodes[size])
    return Costs(
        prefill=tuple((size, statistics.median(times)) for size, times in prefills.items()),
        decode=tuple((size, statistics.median(times)) for size, times in decodes.items()),
    )


def measure_mixed(model: Speech, *, rounds: int) -> MixedCosts:
    """The median durations of one mixed step and of two separate steps.

    A round is two turns: one with the mixed step, and one with the separate steps.
    """
    together: list[float] = []
    apart: list[float] = []
    turns = FILL_TURNS + 2 * rounds
    with _speaking(model, turns) as users:
        for turn in range(turns):
            items = _items(model, users, turn)
            reads, others = items[:PREFILLS], items[PREFILLS:]
            writing: list[str] = []
            for first in range(0, len(others), LARGEST):
                writing += _timed(model.prefill, others[first : first + LARGEST], [])
            decodes, rest = writing[:DECODES], writing[DECODES:]
            measured = turn >= FILL_TURNS and len(decodes) == DECODES
            steps, times = (_together, together) if turn % 2 else (_apart, apart)
            step = partial(steps, model, decodes=decodes)
            rest += _timed(step, reads, times if measured else [])
            _decode_all(model, rest, LARGEST, [])
    return MixedCosts(together=statistics.median(together), apart=statistics.median(apart))


def _together(model: Speech, reads: Sequence[Prefill], decodes: Sequence[str]) -> Answers:
    read, decoded = model.step(reads, decodes)
    return [*read, *decoded]


def _apart(model: Speech, reads: Sequence[Prefill], decodes: Sequence[str]) -> Answers:
    return [*model.prefill(reads), *model.decode(decodes)]


@contextmanager
def _speaking(model: Speech, turns: int) -> Iterator[dict[int, Speaker]]:
    """Open a session for each user. Each user speaks ``turns`` turns."""
    turn_s = model.shape.block_samples / SAMPLE_RATE
    users = dict(enumerate(speakers(SESSIONS, for_s=turns * turn_s, turn_s=turn_s)))
    for user, speaker in users.items():
        model.open(str(user), next(pair for pair in model.shape.pairs if pair.target == speaker.target))
    try:
        yield users
    finally:
        for user in users:
            model.close(str(user))


def _items(model: Speech, users: dict[int, Speaker], turn: int) -> list[Prefill]:
    samples = model.shape.block_samples
    return [Prefill(session=str(user), audio=speaker.turn(turn, samples)) for user, speaker in users.items()]


def _turn(
    model: Speech,
    users: dict[int, Speaker],
    turn: int,
    size: int,
    prefills: list[float],
    decodes: list[float],
) -> None:
    """Run a turn of all sessions in batches of one size, and add the milliseconds of each batch."""
    items = _items(model, users, turn)
    writing: list[str] = []
    for first in range(0, len(items), size):
        writing += _timed(model.prefill, items[first : first + size], prefills)
    _decode_all(model, writing, size, decodes)


def _decode_all(model: Speech, writing: list[str], size: int, decodes: list[float]) -> None:
    """Decode until all turns have ended. Add the milliseconds of each batch that has ``size`` sessions."""
    while writing:
        batch, rest = writing[:size], writing[size:]
        writing = rest + _timed(model.decode, batch, decodes if len(batch) == size else [])


def _timed(step: Callable[[Sequence[K]], Answers], batch: Sequence[K], times: list[float]) -> list[str]:
    """Run a step, and add its milliseconds. :returns: the sessions that need to decode."""
    began = time.perf_counter()
    answers = step(batch)
    times.append((time.perf_counter() - began) * 1000)
    return [answer.session for answer in answers if isinstance(answer, Token) and answer.token is not None]
