"""Celery on Redis: no results, no events, early acknowledgement (Celery's default), one connection for the producer."""

from __future__ import annotations

from celery import Celery

from verification.benchmarks.competitors.apps.bench import COUNTER, produce, run

app = Celery("bench", broker=run()["url"])
app.conf.update(
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_send_task_events=False,
    worker_prefetch_multiplier=run().get("prefetch", 4),
    worker_enable_remote_control=False,
    broker_connection_retry_on_startup=True,
)


@app.task(name="noop")
def noop(sent: int = 0) -> None:
    """Count the task. ``sent`` is when it was submitted, in ``time.monotonic_ns``; 0 if its delay is not measured."""
    COUNTER.count(sent)


def many(number: int) -> None:
    """Submit tasks one by one over one connection of the pool."""
    with app.producer_pool.acquire(block=True) as producer:
        for _ in range(number):
            noop.apply_async(producer=producer)


if __name__ == "__main__":
    produce(many, lambda sent: noop.apply_async((sent,)))
