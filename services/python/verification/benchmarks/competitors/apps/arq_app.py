"""arq with coroutines and uvloop, without stored results. It polls every 5 ms instead of every 500 ms."""

from __future__ import annotations

import asyncio
from typing import Any

import uvloop
from arq import create_pool
from arq.connections import RedisSettings

from verification.benchmarks.competitors.apps.bench import COUNTER, at_once, produce_async, run

asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())


async def noop(ctx: dict[str, Any], sent: int = 0) -> None:
    """Count the task. ``sent`` is when it was submitted, in ``time.monotonic_ns``; 0 if its delay is not measured."""
    COUNTER.count(sent)


class WorkerSettings:
    """The settings that the command `arq` reads."""

    functions = (noop,)
    redis_settings = RedisSettings.from_dsn(run()["url"])
    max_jobs = run().get("max_jobs", 10)
    poll_delay = run().get("poll_delay", 0.5)
    keep_result = 0
    log_results = False


async def main() -> None:
    """Submit tasks as the command line says. arq has no batches, so ``produce`` makes 50 calls at a time."""
    pool = await create_pool(WorkerSettings.redis_settings)
    await produce_async(
        lambda number: at_once(number, 50, lambda: pool.enqueue_job("noop")),
        lambda sent: pool.enqueue_job("noop", sent),
    )
    await pool.aclose()


if __name__ == "__main__":
    asyncio.run(main())
