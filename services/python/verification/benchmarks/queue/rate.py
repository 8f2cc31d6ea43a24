"""Measures how many tasks per second can be submitted (in batches), claimed and settled.

As in production, the queue's scripts write all records of each task.

One producer process submits the tasks, and two leader processes claim and settle them. If the machine has enough cores,
these processes do not run on the server's core.

While the producer submits and the leaders settle, the queue keeps about the same depth, because the producer runs only
a little ahead of the leaders.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from daybreak_server.adapters.redis.client import connect
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import Finished, Lease, NewTask
from verification.benchmarks.queue import processes
from verification.benchmarks.queue.server import BenchServer
from verification.benchmarks.queue.tasks import POOL, group, plain, realistic

BATCH = 200
AHEAD = 1000
"""How many tasks the producer may be ahead of the leaders."""
LEADERS = 2
WIDTH = 16
"""The number of groups in one leader process. One call settles the tasks of all of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The figures at one depth of the queue."""

    depth: int
    bytes_a_task: float
    ended_bytes: float
    submits_s: float
    submit_us: float
    """CPU microseconds of the server's main thread for the submit of one task. ``settle_us`` is
    the same for the settle of one task."""
    settles_s: float
    settle_us: float
    tasks_s: tuple[float, ...]
    """Tasks submitted, claimed and settled per second, in each repeat."""
    single_s: float
    """Tasks per second with one group in each leader process, so that each call settles one task."""
    raw_s: float
    """The baseline: payloads per second through a plain list. RPUSH appends ``BATCH`` payloads at a time, and LPOP
    takes one at a time. A round of this baseline follows each repeat. The figure is the median of these rounds."""


class Counters:
    """Counters in shared memory. Each process writes only its own counter, so no locks are needed."""

    def __init__(self, leaders: int) -> None:
        context = processes.context()
        self.submitted = context.RawValue("q", 0)
        self.settled = context.RawArray("q", leaders)
        self.ready = context.Semaphore(0)
        self.go = context.Event()

    @property
    def settled_total(self) -> int:
        """Tasks settled by all leaders."""
        return sum(self.settled)


def fill(url: str, number: int, *, cores: Collection[int], makers: int = 2) -> None:
    """Queue ``number`` realistic tasks."""
    parts = [number // makers + (1 if at < number % makers else 0) for at in range(makers)]
    context = processes.context()
    _run_all([context.Process(target=_fill, args=(url, part, set(cores)), daemon=True) for part in parts])


def measure(server: BenchServer, *, depth: int, tasks: int, repeats: int, cores: Collection[int]) -> Rate:
    """Fill the queue to ``depth``. Then measure submits, settles, and both at the same time.

    The last measurement runs with up to ``WIDTH`` tasks in each settle call, and again with one task in each call.
    """
    queued = _queued(server)
    before = server.info()["used_memory"]
    fill(server.url, max(0, depth - queued), cores=cores)
    server.calm()
    after = server.info()["used_memory"]
    a_task = (after - before) / (depth - queued) if queued < depth / 2 else after / queued
    half = max(500, tasks // 2)
    cpu = server.cpu_s()
    submits = half / _run(server.url, produced=half, settled=0, cores=cores)
    submit_us, cpu = (server.cpu_s() - cpu) / half * 1e6, server.cpu_s()
    waiting = server.info()["used_memory"]
    settles = half / _run(server.url, produced=0, settled=half, cores=cores)
    ended = a_task + (server.info()["used_memory"] - waiting) / half
    settle_us = (server.cpu_s() - cpu) / half * 1e6
    rates, raws = [], []
    for _ in range(repeats):  # store and plain list alternate, so that other load affects both
        rates.append(tasks / _run(server.url, produced=tasks, settled=tasks, cores=cores))
        raws.append(tasks / _run(server.url, produced=tasks, settled=tasks, cores=cores, raw=True))
    single = half / _run(server.url, produced=half, settled=half, cores=cores, width=1)
    return Rate(
        depth=depth, bytes_a_task=a_task, ended_bytes=ended, submits_s=submits, submit_us=submit_us, settles_s=settles,
        settle_us=settle_us, tasks_s=tuple(rates), single_s=single, raw_s=statistics.median(raws),
    )  # fmt: skip


def _queued(server: BenchServer) -> int:
    with server.client() as client:
        return int(client.zcard(f"daybreak:{{{POOL}}}:live"))


def _run(
    url: str,
    *,
    produced: int,
    settled: int,
    cores: Collection[int],
    raw: bool = False,
    width: int = WIDTH,
) -> float:
    """Seconds until ``produced`` tasks are submitted and ``settled`` tasks are settled."""
    counters, context = Counters(LEADERS), processes.context()
    produce, lead = (_produce_raw, _lead_raw) if raw else (_produce, _lead)
    workers = []
    if produced:
        ahead = AHEAD if settled else produced + AHEAD
        workers.append(
            context.Process(target=produce, args=(url, counters, produced, ahead, set(cores)), daemon=True)
        )
    for at in range(LEADERS if settled else 0):
        workers.append(
            context.Process(target=lead, args=(url, counters, at, settled, set(cores), width), daemon=True)
        )
    with _running(workers):
        for worker in workers:
            while not counters.ready.acquire(timeout=1):
                if worker.exitcode not in (None, 0):
                    raise RuntimeError("a process of the benchmark ended early; its error is above")
        started = time.monotonic()
        counters.go.set()
        while counters.submitted.value < produced or counters.settled_total < settled:
            if any(worker.exitcode not in (None, 0) for worker in workers):
                raise RuntimeError("a process of the benchmark ended early; its error is above")
            time.sleep(0.002)
        return time.monotonic() - started


@contextmanager
def _running(workers: list[Any]) -> Iterator[None]:
    for worker in workers:
        worker.start()
    try:
        yield
        for worker in workers:
            worker.join(60)
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.kill()


def _run_all(workers: list[Any]) -> None:
    with _running(workers):
        for worker in workers:
            worker.join()
    if any(worker.exitcode for worker in workers):
        raise RuntimeError("a process of the benchmark failed; its error is above")


# ── run in other processes ────────────────────────────────────────────────────────────────────────────


def _fill(url: str, number: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)

    async def run() -> None:
        store = RedisStore(url, timeout_s=60, max_queued={POOL: 10**9})
        for at in range(0, number, BATCH):
            await _submit(store, realistic, at, min(BATCH, number - at))
        await store.close()

    asyncio.run(run())


async def _submit(store: RedisStore, make: Callable[[int], NewTask], first: int, number: int) -> None:
    answers = await store.submit([make(first + at) for at in range(number)])
    for answer in answers:
        if isinstance(answer, Exception):
            raise answer


def _produce(url: str, counters: Counters, number: int, ahead: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)

    async def run() -> None:
        store = RedisStore(url, timeout_s=30, max_queued={POOL: 10**9})
        await store.tick(POOL)
        counters.ready.release()
        counters.go.wait()
        ticked = time.monotonic()
        for at in range(0, number, BATCH):
            while counters.submitted.value - counters.settled_total > ahead - BATCH:
                await asyncio.sleep(0.0005)
            batch = min(BATCH, number - at)
            await _submit(store, plain, at, batch)
            counters.submitted.value += batch
            if time.monotonic() - ticked >= 1:  # a gateway ticks each second
                await store.tick(POOL)
                ticked = time.monotonic()
        await store.close()

    asyncio.run(run())


def _lead(url: str, counters: Counters, at: int, number: int, cores: set[int], width: int) -> None:
    os.sched_setaffinity(0, cores)
    queue, done = RedisQueue(url, pool=POOL, timeout_s=30), Finished(artifacts=())
    groups = [group(at * WIDTH + offset) for offset in range(width)]
    for me in groups:
        queue.register(me, ttl_s=3600)
    counters.ready.release()
    counters.go.wait()
    held: list[tuple[Lease, GroupRecord]] = []
    while True:
        enough = counters.settled_total >= number
        if not held:
            if enough:
                break
            held = _first_claims(queue, groups)
        answers = queue.settle_each([(lease, done, None if enough else me) for lease, me in held])
        counters.settled[at] += len(held)
        held = [
            (answer.next.lease, me)
            for answer, (_, me) in zip(answers, held, strict=True)
            if answer.next is not None
        ]
    for me in groups:
        queue.deregister(me)
    queue.close()


def _first_claims(queue: RedisQueue, groups: list[GroupRecord]) -> list[tuple[Lease, GroupRecord]]:
    """Claim a task for each of the idle groups. Wait up to 5 s for the task of the first group."""
    first_claim = queue.claim(groups[0], wait_s=5)
    if first_claim is None:
        return []
    other_claims = queue.claim_each(groups[1:]) if len(groups) > 1 else []
    return [
        (claim.lease, me)
        for claim, me in zip([first_claim, *other_claims], groups, strict=True)
        if claim is not None
    ]


def _produce_raw(url: str, counters: Counters, number: int, ahead: int, cores: set[int]) -> None:
    os.sched_setaffinity(0, cores)
    client = connect(url, timeout_s=30)
    counters.ready.release()
    counters.go.wait()
    for at in range(0, number, BATCH):
        while counters.submitted.value - counters.settled_total > ahead - BATCH:
            time.sleep(0.0005)
        batch = min(BATCH, number - at)
        client.rpush("raw-tasks", *[b"x" * 250] * batch)
        counters.submitted.value += batch
    client.close()


def _lead_raw(url: str, counters: Counters, at: int, number: int, cores: set[int], width: int) -> None:
    os.sched_setaffinity(0, cores)
    client = connect(url, timeout_s=30)
    counters.ready.release()
    counters.go.wait()
    while counters.settled_total < number:
        if client.lpop("raw-tasks") is not None:
            counters.settled[at] += 1
    client.close()
