"""Measures what the scripts of the hot path cost the server (CPU of its main thread) and the client for each task.

``python -m verification.benchmarks.queue.scripts_cpu [--tasks 5000] [--batch 50] [--flavour valkey]`` submits tasks in
batches. Then groups settle each task and claim the next. At first, each call does so for sixteen groups, and later for
one group. If the machine has two cores or more, the server has one core to itself. The figures are microseconds per
task, and show where time goes; ``verification.benchmarks.queue`` makes the published table.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import redis

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_group_id, new_task_id
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.tasks import Finished, NewTask
from daybreak_server.ports.tasks import Submitted
from testkit.valkey import Server, start_valkey

DONE = Finished(artifacts=())
GROUPS = 16


@dataclass(frozen=True, slots=True)
class Cost:
    """Microseconds per task."""

    wall: float
    server: float
    scripts: float
    client: float

    def __str__(self) -> str:
        return (
            f"wall {self.wall:6.0f}   server's main thread {self.server:6.0f} (in scripts {self.scripts:6.0f})"
            f"   client {self.client:6.0f}   {1e6 / self.wall:8.0f}/s"
        )


def _main_thread_s(client: redis.Redis) -> float:
    info = client.info("cpu")
    return float(info["used_cpu_user_main_thread"]) + float(info["used_cpu_sys_main_thread"])


@contextmanager
def measured(name: str, client: redis.Redis, tasks: int) -> Iterator[None]:
    """Print what the block costs per task, and how often its scripts ran each Redis command per task."""
    client.config_resetstat()
    server, cpu, wall = _main_thread_s(client), time.process_time(), time.perf_counter()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    server = _main_thread_s(client) - server
    stats = {key.removeprefix("cmdstat_"): value for key, value in client.info("commandstats").items()}
    scripts = stats.get("fcall", {"usec": 0})["usec"]
    each = [1e6 * value / tasks for value in (wall, server, scripts / 1e6, cpu)]
    print(f"{name:16s}{Cost(*each)}")
    quiet = ("fcall", "eval", "function|load", "info", "config|resetstat", "script|load", "client|setinfo")
    counts = sorted(((v["calls"], k) for k, v in stats.items() if k not in quiet), reverse=True)
    print(" " * 16 + "  ".join(f"{k} {calls / tasks:.2f}" for calls, k in counts if calls / tasks >= 0.005))


def _tasks(count: int, tenants: int) -> list[NewTask]:
    return [
        NewTask(id=new_task_id("echo"), pool="echo", tenant=f"tenant-{i % tenants}", input_json="{}")
        for i in range(count)
    ]


async def _submit(store: RedisStore, tasks: list[NewTask], batch: int) -> None:
    for start in range(0, len(tasks), batch):
        answers = await store.submit(tasks[start : start + batch])
        assert all(isinstance(answer, Submitted) for answer in answers), answers


def _settle_each(queue: RedisQueue, groups: list[GroupRecord], count: int) -> None:
    """Settle the tasks of all groups in one call, as a process with several groups does."""
    claims = queue.claim_each(groups)
    for _ in range(count // len(groups)):
        endings = []
        for claim, group in zip(claims, groups, strict=True):
            assert claim is not None
            endings.append((claim.lease, DONE, group))
        claims = [settled.next for settled in queue.settle_each(endings)]
    for claim in claims:
        assert claim is not None
        queue.settle(claim.lease, DONE)


async def _probe(server: Server, *, count: int, batch: int, tenants: int) -> None:
    store, queue = RedisStore(server.url), RedisQueue(server.url, pool="echo")
    groups = [GroupRecord(id=new_group_id(), state=GroupState.IDLE) for _ in range(GROUPS)]
    for group in groups:
        queue.register(group, ttl_s=600)
    await _submit(store, _tasks(50, tenants), batch)
    with server.client() as client:
        tasks = _tasks(count, tenants)
        with measured(f"submit ×{batch}", client, count):
            await _submit(store, tasks, batch)
        with measured(f"settle+claim ×{GROUPS}", client, count):
            _settle_each(queue, groups, count)
        await _submit(store, _tasks(count, tenants), batch)
        tasks = _tasks(count // 10, tenants)
        with measured("submit ×1", client, len(tasks)):
            await _submit(store, tasks, 1)
        group = groups[0]
        claim = queue.claim(group, wait_s=1)
        with measured("settle+claim", client, count):
            for _ in range(count):
                assert claim is not None
                claim = queue.settle(claim.lease, DONE, claim_next=group).next
    await store.close()
    queue.close()


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=5000)
    parser.add_argument("--batch", type=int, default=50)
    parser.add_argument("--tenants", type=int, default=1)
    parser.add_argument("--flavour", default="valkey", choices=("valkey", "redis"))
    options = parser.parse_args()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        server = start_valkey(Path(folder), flavour=options.flavour)
        try:
            if len(cores) > 1 and server.pid is not None:
                os.sched_setaffinity(server.pid, {cores[0]})
                os.sched_setaffinity(0, {cores[1]})
            asyncio.run(_probe(server, count=options.tasks, batch=options.batch, tenants=options.tenants))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
