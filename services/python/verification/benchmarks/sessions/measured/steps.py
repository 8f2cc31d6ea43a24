"""How long a step of the tiny speech model takes, by the number of its sessions."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from daybreak_server.domain.sessions import SAMPLE_RATE
from daybreak_server.workloads.sessions import Prefill, SessionFailedError, Token
from daybreak_server.workloads.speech.model import Speech
from verification.benchmarks.sessions.costs import Costs
from verification.benchmarks.sessions.measured.speakers import Speaker, speakers

SIZES = (1, 2, 4, 8, 16, 32)
LARGEST = SIZES[-1]
SESSIONS = 3 * LARGEST
"""Enough sessions that after a prefill, at least a whole batch of them needs to decode."""
FILL_TURNS = 12
"""Turns before the first measurement, so that all windows are full."""
Answers = Sequence[Token | SessionFailedError]
K = TypeVar("K")


def measure(model: Speech, *, rounds: int) -> Costs:
    """The median duration of the batches of each size. A round is a turn of all sessions with each size."""
    turn_s = model.shape.block_samples / SAMPLE_RATE
    turns = FILL_TURNS + rounds * len(SIZES)
    users = dict(enumerate(speakers(SESSIONS, for_s=turns * turn_s, turn_s=turn_s)))
    for user, speaker in users.items():
        model.open(str(user), next(pair for pair in model.shape.pairs if pair.target == speaker.target))
    prefills: dict[int, list[float]] = {size: [] for size in SIZES}
    decodes: dict[int, list[float]] = {size: [] for size in SIZES}
    for turn in range(turns):
        if turn < FILL_TURNS:
            _turn(model, users, turn, LARGEST, [], [])
        else:
            size = SIZES[turn % len(SIZES)]
            _turn(model, users, turn, size, prefills[size], decodes[size])
    for user in users:
        model.close(str(user))
    return Costs(
        prefill=tuple((size, statistics.median(times)) for size, times in prefills.items()),
        decode=tuple((size, statistics.median(times)) for size, times in decodes.items()),
    )


def _turn(
    model: Speech,
    users: dict[int, Speaker],
    turn: int,
    size: int,
    prefills: list[float],
    decodes: list[float],
) -> None:
    """Run a turn of all sessions in batches of one size, and add the milliseconds of each batch."""
    samples = model.shape.block_samples
    items = [Prefill(session=str(user), audio=speaker.turn(turn, samples)) for user, speaker in users.items()]
    writing: list[str] = []
    for first in range(0, len(items), size):
        writing += _timed(model.prefill, items[first : first + size], prefills)
    while writing:
        batch, rest = writing[:size], writing[size:]
        writing = rest + _timed(model.decode, batch, decodes if len(batch) == size else [])


def _timed(step: Callable[[Sequence[K]], Answers], batch: Sequence[K], times: list[float]) -> list[str]:
    """Run a step, and add its milliseconds. :returns: the sessions that need to decode."""
    began = time.perf_counter()
    answers = step(batch)
    times.append((time.perf_counter() - began) * 1000)
    return [answer.session for answer in answers if isinstance(answer, Token) and answer.token is not None]
