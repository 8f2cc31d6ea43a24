"""CPU time of a gateway and its Redis for each submit, in each mode of observability (see ``modes``).

Even two gateways that do exactly the same work differ in CPU time by about a percent. The difference lasts as long as
they run: their memory addresses differ, and so do their hash seeds unless the gateways share a seed. More rounds with
the same processes do not remove this difference. So the benchmark starts all processes several times, each time with a
new seed that all gateways share. After each start, the gateways take turns in random order. Each round gives, for each
mode, one difference from the baseline. The baseline is the mean of two gateways without observability. The difference
between these two gateways is the *control*: it shows how far the figures of two gateways differ although both do the
same work.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from verification.benchmarks.http import load
from verification.benchmarks.http.parts import Running
from verification.benchmarks.http.plan import plain
from verification.benchmarks.observability_cost import modes
from verification.benchmarks.observability_cost.modes import cpu_s

GATEWAYS = {"off": "off", "control": "off", "on": "on", "all": "all"}
"""The gateways that take turns, and the mode of each. The first two gateways are the baseline."""
PARTS = {part: part for part in modes.PARTS}
"""Gateways with one part of observability each. With the option ``--parts``, they take turns with :data:`GATEWAYS`."""
STARTS, ROUNDS = 8, 40
TURN_S = 0.1
_AT_ONCE = 16
_WARM_UP_S = 1.0

Start = Callable[[str, str, int], AbstractContextManager[tuple[Running, Running]]]
"""Starts a gateway and its Redis. The arguments: a name for their files, a mode and a hash seed."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds for each submit. Each list has one figure for each start."""

    base: Sequence[float]
    """The median, over the rounds, of the baseline. The baseline of ``control`` is the first gateway alone."""
    extra: Sequence[float]
    """What the mode adds: the median, over the rounds, of the difference from the baseline."""


def measure(
    start: Start,
    *,
    gateways: Mapping[str, str] = GATEWAYS,
    starts: int = STARTS,
    rounds: int = ROUNDS,
    seed: int,
) -> dict[str, Cost]:
    """The cost of each gateway except the first, by name."""
    order = random.Random(seed)
    figures = [_one_start(start, gateways, number, rounds, order) for number in range(starts)]
    first, second, *others = gateways
    bases = [
        [statistics.mean(pair) for pair in zip(took[first], took[second], strict=True)] for took in figures
    ]
    costs = {name: _cost([took[name] for took in figures], bases) for name in others}
    return {second: _cost([took[second] for took in figures], [took[first] for took in figures]), **costs}


def _cost(figures: Sequence[Sequence[float]], bases: Sequence[Sequence[float]]) -> Cost:
    """What a mode costs. For each round of each start, ``figures`` has the figure of the mode, and ``bases``
    has the figure of the baseline."""
    return Cost(
        base=[statistics.median(base) for base in bases],
        extra=[
            statistics.median(cost - without for cost, without in zip(took, base, strict=True))
            for took, base in zip(figures, bases, strict=True)
        ],
    )


def _one_start(
    start: Start, gateways: Mapping[str, str], number: int, rounds: int, order: random.Random
) -> dict[str, list[float]]:
    """For each gateway, the CPU microseconds for each submit in every round of one start."""
    took: dict[str, list[float]] = {gateway: [] for gateway in gateways}
    with ExitStack() as stack:
        running = {
            gateway: stack.enter_context(start(f"start-{number}-{gateway}", mode, number))
            for gateway, mode in gateways.items()
        }
        for gateway, _ in running.values():
            load.run(gateway.port, plain, concurrency=_AT_ONCE, seconds=_WARM_UP_S)
        for _ in range(rounds):
            for gateway in order.sample(list(gateways), len(gateways)):
                took[gateway].append(_turn(*running[gateway]))
    return took


def _turn(gateway: Running, store: Running) -> float:
    pids, sent = (gateway.process.pid, store.process.pid), 0

    def request(number: int) -> bytes:
        nonlocal sent
        sent += 1
        return plain(number)

    used = cpu_s(*pids)
    load.run(gateway.port, request, concurrency=_AT_ONCE, seconds=TURN_S)
    return (cpu_s(*pids) - used) / sent * 1e6
