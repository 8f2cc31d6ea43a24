"""Batch sizes that adapt to the measured speed of the executor."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import pytest

from daybreak_server.batching.batcher import Batcher, BatchItem
from daybreak_server.batching.rules import Mode, Rules

COSTS: dict[str, Callable[[int], float]] = {
    "no gain": lambda size: size,
    "each item costs more in a batch": lambda size: size**1.5,
    "a batch costs what one item costs": lambda size: 1.0,
    "half of the cost is shared": lambda size: 0.5 + 0.5 * size,
    "gains end at eight": lambda size: 1.0 if size <= 8 else (size - 7) ** 1.5,
}


def run(
    cost: Callable[[int], float], mode: Mode, *, items: int, noise: float = 0.0, size: int = 32
) -> tuple[float, Batcher[int]]:
    """Compute ``items`` items, which all wait from the start. :returns: the seconds that they take, and the batcher."""
    batcher: Batcher[int] = Batcher(Rules(mode=mode, max_batch_size=size, max_waiting=items))
    for key in range(items):
        batcher.add(BatchItem(key=key, tokens=10, arrived=0.0))
    chance, now = random.Random(1), 0.0
    while batch := batcher.next(now).batch:
        seconds = cost(len(batch)) * (1 + chance.uniform(-noise, noise))
        batcher.complete(batch, seconds)
        now += seconds
    return now, batcher


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("cost", COSTS.values(), ids=COSTS)
def test_the_mode_adaptive_is_never_slower_than_a_batch_size_of_one(
    cost: Callable[[int], float], noise: float
) -> None:
    """Trying larger sizes costs at most 2 % of the time."""
    adaptive, _ = run(cost, Mode.ADAPTIVE, items=5000, noise=noise)
    alone, _ = run(cost, Mode.EAGER, items=5000, noise=noise, size=1)
    assert adaptive <= 1.02 * alone


def test_it_finds_the_best_size() -> None:
    """The mode ``adaptive`` finds the best size within a few batches, and keeps it."""
    seconds, batcher = run(COSTS["gains end at eight"], Mode.ADAPTIVE, items=20_000)
    best, _ = run(COSTS["gains end at eight"], Mode.EAGER, items=20_000, size=8)
    assert seconds <= 1.05 * best
    assert batcher.sizes.most_common(1)[0][0] == 8


def test_it_follows_a_change_of_the_executor() -> None:
    """The device becomes busy, so that each item takes longer in a larger batch. Later the device is free again."""
    batcher: Batcher[int] = Batcher(Rules(mode=Mode.ADAPTIVE))
    keys = itertools.count()

    def sizes(cost: Callable[[int], float], batches: int) -> list[int]:
        found = []
        for _ in range(batches):
            while len(batcher) < 32:
                batcher.add(BatchItem(key=next(keys), tokens=10, arrived=0.0))
            batch = batcher.next(0.0).batch
            batcher.complete(batch, cost(len(batch)))
            found.append(len(batch))
        return found

    assert sizes(lambda size: 1.0, 200)[-10:] == [32] * 10
    assert max(sizes(lambda size: size**1.5, 1000)[-10:]) <= 2
    assert 32 in sizes(lambda size: 1.0, 20_000)[-10:]
