"""Daybreak in the comparison. Its leaders run as in production, but their workload only counts tasks. The mode
``produce`` submits tasks in batches, and the mode ``light`` submits them one at a time."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel

from daybreak_server import wiring
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import NewTask
from daybreak_server.settings.tree import Settings
from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec
from verification.benchmarks.competitors.apps.bench import COUNTER, produce_async, run

POOL = "noop"
BATCH = 200


class NoopParams(BaseModel):
    """``sent``: when the task was submitted, in ``time.monotonic_ns``; 0 if the delay of the task is not measured."""

    sent: int = 0


class Noop:
    """Implements :class:`daybreak_server.workloads.base.Workload`."""

    def load(self, group: Group) -> None:
        """Do nothing."""

    def warm_up(self) -> None:
        """Do nothing."""

    def run(self, task: Task[NoopParams], ctx: Context) -> Iterator[Step]:
        """Count the task."""
        COUNTER.count(task.params.sent)
        return iter(())


SPEC: WorkloadSpec[NoopParams] = WorkloadSpec(
    name=POOL, Params=NoopParams, implementation="verification.benchmarks.competitors.apps.daybreak_app:Noop"
)


def settings() -> Settings:
    """One pool with the default settings."""
    tree = {
        "data_dir": str(Path("data")),
        "redis": {"url": run()["url"]},
        "pools": {POOL: {"workload": "verification.benchmarks.competitors.apps.daybreak_app:SPEC"}},
    }
    return Settings.model_validate(tree)


def lead() -> None:
    """Run groups of one rank until SIGTERM."""
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    groups = run().get("groups", 1)
    queue = wiring.shared_queue(settings(), POOL) if groups > 1 else None
    ranks = [
        # As in production: a leader alone in its process has a watchdog; several leaders in one process share a queue.
        wiring.build_rank(settings(), POOL, on_broken=print, with_watchdog=groups == 1, queue=queue)
        for _ in range(groups)
    ]
    for rank in ranks:
        rank.start()
    ended.wait()
    for rank in ranks:
        rank.ask_to_leave()
    for rank in ranks:
        rank.stop(timeout_s=10)


async def main() -> None:
    """Submit tasks as the command line says. At the same time, tick the store, as gateways do."""
    store = RedisStore(run()["url"])
    ticker = asyncio.create_task(tick(store))

    def new(sent: int = 0) -> NewTask:
        return NewTask(id=new_task_id(POOL), pool=POOL, tenant="default", input_json=f'{{"sent":{sent}}}')

    async def submit(tasks: list[NewTask]) -> None:
        for answer in await store.submit(tasks):
            if isinstance(answer, Exception):
                raise answer

    async def many(number: int) -> None:
        for at in range(0, number, BATCH):
            await submit([new() for _ in range(min(BATCH, number - at))])

    await produce_async(many, lambda sent: submit([new(sent)]))
    ticker.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await ticker
    await store.close()


async def tick(store: RedisStore) -> None:
    """Tick as each gateway does."""
    while True:
        await store.tick(POOL)
        await asyncio.sleep(1)


if __name__ == "__main__":
    if sys.argv[1:] == ["lead"]:
        lead()
    else:
        asyncio.run(main())
