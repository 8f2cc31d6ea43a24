"""Taskiq on Redis Streams: coroutine tasks, orjson, uvloop, no result backend."""

from __future__ import annotations

import asyncio

import uvloop
from taskiq.serializers import ORJSONSerializer
from taskiq_redis import RedisStreamBroker

from verification.benchmarks.competitors.apps.bench import COUNTER, at_once, produce_async, run

broker = RedisStreamBroker(run()["url"]).with_serializer(ORJSONSerializer())


@broker.task(task_name="noop")
async def noop(sent: int = 0) -> None:
    """Count the task. ``sent`` is when it was submitted, in ``time.monotonic_ns``; 0 if its delay is not measured."""
    COUNTER.count(sent)


async def main() -> None:
    """Submit tasks as the command line says. ``produce`` makes 100 calls at a time."""
    await broker.startup()
    await produce_async(lambda number: at_once(number, 100, noop.kiq), noop.kiq)
    await broker.shutdown()


if __name__ == "__main__":
    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(main())
