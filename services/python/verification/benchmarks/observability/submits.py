"""CPU time of a gateway and its Redis for each submit, in each mode.

Two gateways that do exactly the same differ by about a percent for as long as they run, because the seeds of their
hashes and the addresses of their memory differ. More rounds with the same processes do not change that. So all
processes are started several times. Each time, the gateways take turns in random order, and each round gives one
difference from the baseline for each mode. A second gateway of the baseline, the *control*, shows how far figures
differ without a reason.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass

from verification.benchmarks.http import load
from verification.benchmarks.http.parts import Running
from verification.benchmarks.http.plan import plain
from verification.benchmarks.observability.modes import cpu_s

GATEWAYS = {"off": "off", "control": "off", "on": "on", "all": "all"}
"""The gateways that take turns, and their modes. The first one is the baseline."""
STARTS, ROUNDS = 6, 40
TURN_S = 0.1
_AT_ONCE = 16
_WARM_UP_S = 1.0

Start = Callable[[str, str], AbstractContextManager[tuple[Running, Running]]]
"""Starts a gateway and its Redis, given a name for their files and a mode."""


@dataclass(frozen=True, slots=True)
class Cost:
    """CPU microseconds for each submit, one figure of each start."""

    base: Sequence[float]
    """The baseline: the median of its rounds."""
    extra: Sequence[float]
    """What the mode adds: the median of the differences of the rounds."""


def measure(start: Start, *, starts: int = STARTS, rounds: int = ROUNDS, seed: int) -> dict[str, Cost]:
    """The cost of each gateway but the baseline's, by name."""
    order = random.Random(seed)
    figures = [_one_start(start, f"start-{number}", rounds, order) for number in range(starts)]
    base, *others = GATEWAYS
    return {
        name: Cost(
            base=[statistics.median(took[base]) for took in figures],
            extra=[
                statistics.median(
                    cost - without for cost, without in zip(took[name], took[base], strict=True)
                )
                for took in figures
            ],
        )
        for name in others
    }


def _one_start(start: Start, name: str, rounds: int, order: random.Random) -> dict[str, list[float]]:
    """The CPU microseconds for each submit, by gateway, of every round."""
    took: dict[str, list[float]] = {gateway: [] for gateway in GATEWAYS}
    with ExitStack() as stack:
        running = {
            gateway: stack.enter_context(start(f"{name}-{gateway}", mode))
            for gateway, mode in GATEWAYS.items()
        }
        for gateway, _ in running.values():
            load.run(gateway.port, plain, concurrency=_AT_ONCE, seconds=_WARM_UP_S)
        for _ in range(rounds):
            for gateway in order.sample(list(GATEWAYS), len(GATEWAYS)):
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
