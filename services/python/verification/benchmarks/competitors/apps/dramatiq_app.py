"""Dramatiq on Redis, with threads and without results. Its only middleware is ``Retries``, without which it
would not retry failed tasks."""

from __future__ import annotations

import dramatiq
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import Retries

from verification.benchmarks.competitors.apps.bench import COUNTER, produce, run

broker = RedisBroker(url=run()["url"], middleware=[Retries()])
dramatiq.set_broker(broker)


@dramatiq.actor
def noop(sent: int = 0) -> None:
    """Count the task. ``sent`` is when it was submitted, in ``time.monotonic_ns``; 0 if its delay is not measured."""
    COUNTER.count(sent)


def many(number: int) -> None:
    """Submit tasks one by one."""
    for _ in range(number):
        noop.send()


if __name__ == "__main__":
    produce(many, noop.send)
