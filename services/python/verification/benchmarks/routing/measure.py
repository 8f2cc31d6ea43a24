"""Measures the routers in rounds. Each round measures every router once, so a slow phase of the machine affects all of
them."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field

from verification.benchmarks.routing import client
from verification.benchmarks.routing.bed import Bed, Router
from verification.benchmarks.routing.client import Samples
from verification.benchmarks.routing.contenders import Contender

TOKENS = 200
"""The number of tokens in each stream."""
STREAMS = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Effort:
    """How much to measure."""

    rounds: int
    seconds: float
    clients: Sequence[int] = (1, 16, 64)
    latency_s: float = 0.02
    pause_s: float = 0.0064
    """The pause between two tokens of a stream. With it, 64 streams produce 10,000 tokens per second."""
    requests: int = 200_000
    memory_s: float = 60.0
    """After this time, a router gets no more requests, even if it has answered fewer than ``requests``."""


FULL = Effort(rounds=3, seconds=2.5)
QUICK = Effort(rounds=1, seconds=0.5, clients=(1, 4), requests=1_000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """One round of one router."""

    p50_ms: float
    p99_ms: float
    rate: float
    """Answers or tokens a second."""
    cpu_us: float
    """CPU time of the router for each answer or token."""
    router_busy: float
    client_busy: float

    @property
    def a_core(self) -> float:
        """The number of answers or tokens that the router could handle in a second if it used one whole core."""
        return 1e6 / self.cpu_us if self.cpu_us else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The resident memory of a router, in bytes, while it answers ``requests`` requests."""

    requests: int
    early: int
    """The memory after a tenth of the requests."""
    late: int
    """The memory at the end."""


@dataclass(slots=True)
class Figures:
    """The measurements, by the name of the router."""

    latency: dict[int, dict[str, list[Round]]] = field(default_factory=dict)
    """The rounds, first by the number of clients, then by the name of the router."""
    saturated: dict[str, list[Round]] = field(default_factory=dict)
    streams: dict[str, list[Round]] = field(default_factory=dict)
    memory: dict[str, Memory] = field(default_factory=dict)


def speed(bed: Bed, contenders: Sequence[Contender], effort: Effort, figures: Figures) -> None:
    """Measure latency below saturation, then the rate at saturation, then streams. All routers run, but only
    one at a time gets requests."""
    with ExitStack() as stack:
        routers = [Router(None, bed.direct)]
        for contender in contenders:
            routers.append(stack.enter_context(bed.router(contender)))
            client.call(routers[-1].port, _plain(routers[-1]), clients=16, seconds=effort.seconds / 2)
        for clients in effort.clients:
            bed.pace(latency_s=effort.latency_s)
            found = figures.latency.setdefault(clients, {})
            for router in routers * effort.rounds:
                stagger_s = effort.latency_s / clients
                found.setdefault(router.name, []).append(
                    _round(
                        router, _plain(router), clients=clients, seconds=effort.seconds, stagger_s=stagger_s
                    )
                )
            _show(f"{clients} clients", found)
        bed.pace()
        for router in routers * effort.rounds:
            figures.saturated.setdefault(router.name, []).append(
                _round(router, _plain(router), clients=max(effort.clients), seconds=effort.seconds)
            )
        _show("saturated", figures.saturated)
        bed.pace(pause_s=effort.pause_s)
        for router in routers * effort.rounds:
            request = client.render(router.path, client.chat(tokens=TOKENS, stream=True))
            figures.streams.setdefault(router.name, []).append(
                _round(
                    router,
                    request,
                    clients=STREAMS,
                    seconds=effort.seconds,
                    stagger_s=effort.seconds / 4 / STREAMS,
                    streamed=True,
                )
            )
        _show("streams", figures.streams)


def memory(bed: Bed, contenders: Sequence[Contender], effort: Effort, figures: Figures) -> None:
    """Resident memory of each router while it answers as fast as it can."""
    bed.pace()
    for contender in contenders:
        with bed.router(contender) as router:
            bed.pace()
            until, done = time.monotonic() + effort.memory_s, 0
            seen: list[int] = []
            while done < effort.requests and (not seen or time.monotonic() < until):
                part = max(1, effort.requests // 20)
                done += client.call(router.port, _plain(router), clients=64, requests=part).answers
                seen.append(router.rss_bytes)
        figures.memory[router.name] = Memory(
            requests=done, early=seen[max(0, len(seen) // 10 - 1)], late=seen[-1]
        )
        print(router.name, figures.memory[router.name], file=sys.stderr, flush=True)


def _plain(router: Router) -> bytes:
    return client.render(router.path, client.chat(tokens=60))


def _round(
    router: Router,
    request: bytes,
    *,
    clients: int,
    seconds: float,
    stagger_s: float = 0.0,
    streamed: bool = False,
) -> Round:
    cpu_s = router.cpu_s
    samples: Samples = client.call(
        router.port, request, clients=clients, seconds=seconds, stagger_s=stagger_s, streamed=streamed
    )
    used_s = router.cpu_s - cpu_s
    return Round(
        p50_ms=samples.quantile_ms(0.5),
        p99_ms=samples.quantile_ms(0.99),
        rate=samples.rate,
        cpu_us=used_s / len(samples.outside_ns) * 1e6,
        router_busy=used_s / samples.seconds,
        client_busy=samples.client_busy,
    )


def _show(what: str, found: dict[str, list[Round]]) -> None:
    for name, rounds in found.items():
        for each in rounds:
            print(what, name, each, file=sys.stderr, flush=True)
