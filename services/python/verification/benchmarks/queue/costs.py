"""Measures the CPU time of Redis's main thread for one call of each operation, including the time that it takes to read
the call and to write the reply.

`verification.benchmarks.shard_simulation` uses these times as its service times.
"""

from __future__ import annotations

import asyncio
import os
import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager

from daybreak_server.adapters.redis.events import RedisEvents
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.tasks import Claim, EventDraft, Finished
from verification.benchmarks.queue import processes
from verification.benchmarks.queue.server import BenchServer
from verification.benchmarks.queue.tasks import POOL, group, plain

READERS = 8
ROUNDS = 3
BATCH = 100
_STEP = {"phase": "denoise", "fraction": 0.5, "step": 5, "steps": 10, "eta_s": 1.0}


def measure(server: BenchServer, *, calls: int, cores: Collection[int]) -> Mapping[str, float]:
    """Microseconds of server CPU per call, by operation."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, set(cores))
    try:
        return {**_group_side(server, calls), **asyncio.run(_gateway_side(server, calls))}
    finally:
        os.sched_setaffinity(0, before)


def _cpu_us(server: BenchServer, calls: int, action: Callable[[], object]) -> float:
    action()
    before = server.cpu_s()
    for _ in range(calls):
        action()
    return (server.cpu_s() - before) / calls * 1e6


def _group_side(server: BenchServer, calls: int) -> dict[str, float]:
    queue, me = RedisQueue(server.url, pool=POOL), group(0)
    queue.register(me, ttl_s=3600)
    costs = {
        "a claim that finds nothing": _cpu_us(server, calls, lambda: queue.claim(me, wait_s=0)),
        "a refresh of a group": _cpu_us(server, calls, lambda: queue.register(me, ttl_s=3600)),
    }
    asyncio.run(_submit(server.url, 1))
    claim = queue.claim(me, wait_s=5)
    assert isinstance(claim, Claim)
    step = [EventDraft(type="progress", data=_STEP)]
    costs["a renewal of a lease"] = _cpu_us(server, calls, lambda: queue.renew(claim.lease))
    costs["a report of one event"] = _cpu_us(
        server, calls, lambda: queue.report(claim.lease, step, fields=_STEP)
    )
    queue.settle(claim.lease, Finished(artifacts=()))
    queue.deregister(me)
    queue.close()
    return costs


async def _submit(url: str, number: int) -> None:
    store = RedisStore(url)
    for at in range(number):
        await store.submit([plain(at)])
    await store.close()


async def _gateway_side(server: BenchServer, calls: int) -> dict[str, float]:
    store = RedisStore(server.url)
    await store.tick(POOL)
    before = server.cpu_s()
    for _ in range(calls):
        await store.tick(POOL)
    tick = (server.cpu_s() - before) / calls * 1e6
    bare, followed = [], []
    # Measurements without and with readers alternate, because their difference is small and machines are noisy.
    for _ in range(ROUNDS):
        bare.append(await _alone_and_batched(server, store, calls))
        with _followers(server.url) as ready:
            await asyncio.to_thread(ready)
            followed.append(await _alone_and_batched(server, store, calls))
    await store.close()
    return {
        "a tick": tick,
        "a submit of one task": statistics.median(alone for alone, _ in bare),
        "an event sent to one reader": _difference(followed, bare, 0) / READERS,
        "an event sent to one reader, many at once": _difference(followed, bare, 1) / READERS,
    }


def _difference(
    followed: Sequence[tuple[float, float]], bare: Sequence[tuple[float, float]], at: int
) -> float:
    return statistics.median(pair[at] for pair in followed) - statistics.median(pair[at] for pair in bare)


async def _alone_and_batched(server: BenchServer, store: RedisStore, calls: int) -> tuple[float, float]:
    """The server's CPU time for a task that is submitted alone, and for a task in a batch."""
    return await _submits(server, store, calls), await _submits(server, store, 5 * calls, batch=BATCH)


@contextmanager
def _followers(url: str) -> Iterator[Callable[[], object]]:
    """Run readers in another process until the block ends. The yielded callable waits until the readers are ready."""
    context = processes.context()
    stop, ready = context.Event(), context.Semaphore(0)
    reader = context.Process(target=_follow, args=(url, READERS, ready, stop), daemon=True)
    reader.start()
    try:
        yield ready.acquire
    finally:
        stop.set()
        reader.join(10)
        if reader.is_alive():
            reader.kill()


async def _submits(server: BenchServer, store: RedisStore, calls: int, *, batch: int = 1) -> float:
    """Server CPU per task in µs. After each call there is a pause, so that readers block again."""
    before = server.cpu_s()
    for at in range(0, calls, batch):
        await store.submit([plain(at + offset) for offset in range(batch)])
        await asyncio.sleep(0.001)
    return (server.cpu_s() - before) / (-(-calls // batch) * batch) * 1e6


def _follow(url: str, readers: int, ready: object, stop: object) -> None:
    """Read the pool's events with blocking readers. Each reader stands for one gateway."""

    async def read() -> None:
        events = RedisEvents(url)
        after = await events.tail(POOL)
        async for _ in events.follow(POOL, after=after):
            pass

    async def run() -> None:
        tasks = [asyncio.create_task(read()) for _ in range(readers)]
        await asyncio.sleep(0.5)
        ready.release()  # type: ignore[attr-defined]
        while not stop.is_set():  # type: ignore[attr-defined]
            await asyncio.sleep(0.02)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
