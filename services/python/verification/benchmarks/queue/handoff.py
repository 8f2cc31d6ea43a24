"""Measures the time from a submit until a waiting leader has the task, and compares it with a bare BLPOP.

Two processes use the production classes on one server. Raw and Daybreak samples alternate, so that other load on the
machine affects both kinds of sample. A raw sample is one RPUSH by the same client library, and one BLPOP
that waits for it.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from daybreak_server.adapters.redis.client import connect, connect_async
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.tasks import Finished
from verification.benchmarks.queue import processes
from verification.benchmarks.queue.tasks import POOL, group, plain

RAW_KEY = "raw-hand-off"
WARM_UP = 100
PAUSE_S = (0.002, 0.005)
"""The shortest and the longest pause before a sample. In this pause, the leader settles its task and waits again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HandOff:
    """Milliseconds of each sample."""

    raw_ms: tuple[float, ...]
    queue_ms: tuple[float, ...]


def quantile(values: Sequence[float], share: float) -> float:
    """The quantile of the values at ``share``, a fraction from 0 to 1."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def tenths_range(values: Sequence[float], share: float) -> tuple[float, float]:
    """Compute the quantile at ``share`` for each tenth of the run. Return the smallest and the largest result."""
    size = max(1, len(values) // 10)
    parts = [quantile(values[at : at + size], share) for at in range(0, len(values), size)]
    return min(parts), max(parts)


def measure(url: str, *, samples: int, cores: Collection[int]) -> HandOff:
    """Take ``samples`` raw samples, and the same number of Daybreak samples."""
    context = processes.context()
    our_end, leader_end = context.Pipe()
    total = samples + WARM_UP
    leader = context.Process(target=_lead, args=(url, leader_end, total, set(cores)), daemon=True)
    leader.start()
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        raw, queue = asyncio.run(_produce(url, our_end, total))
    finally:
        os.sched_setaffinity(0, before)
        leader.join(30)
        if leader.is_alive():
            leader.kill()
    return HandOff(raw_ms=tuple(raw[WARM_UP:]), queue_ms=tuple(queue[WARM_UP:]))


async def _produce(url: str, pipe: Connection, total: int) -> tuple[list[float], list[float]]:
    client, store = connect_async(url, timeout_s=5), RedisStore(url)
    chance = random.Random(1)
    raw, queue = [], []
    assert pipe.recv() == "ready"
    for number in range(total):
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        sent = time.monotonic_ns()
        await client.rpush(RAW_KEY, b"x" * 64)
        raw.append((pipe.recv() - sent) / 1e6)
        await asyncio.sleep(chance.uniform(*PAUSE_S))
        task = plain(number)
        sent = time.monotonic_ns()
        (answer,) = await store.submit([task])
        queue.append((pipe.recv() - sent) / 1e6)
        if isinstance(answer, Exception):
            raise answer
    await client.aclose()
    await store.close()
    return raw, queue


def _lead(url: str, pipe: Connection, total: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    client, queue, me = connect(url, timeout_s=30), RedisQueue(url, pool=POOL), group(0)
    queue.register(me, ttl_s=3600)
    pipe.send("ready")
    for _ in range(total):
        client.blpop([RAW_KEY], timeout=20)
        pipe.send(time.monotonic_ns())
        claim = queue.claim(me, wait_s=20)
        pipe.send(time.monotonic_ns())
        if claim is None:
            raise TimeoutError(f"no task of pool {POOL} came within 20 s")
        queue.settle(claim.lease, Finished(artifacts=()))
    queue.close()
    client.close()
