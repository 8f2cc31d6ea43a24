"""RQ with its JSON serializer, and with workers that do not fork for each job.

Jobs are enqueued in batches; no result is kept.
"""

from __future__ import annotations

from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer

from verification.benchmarks.competitors.apps.bench import COUNTER, produce, run


def noop(sent: int = 0) -> None:
    """Count the task. ``sent`` is when it was submitted, in ``time.monotonic_ns``; 0 if its delay is not measured."""
    COUNTER.count(sent)


def main() -> None:
    """Submit tasks as the command line says. ``produce`` enqueues batches of 200."""
    queue = Queue(connection=Redis.from_url(run()["url"]), serializer=JSONSerializer)

    def many(number: int) -> None:
        for at in range(0, number, 200):
            size = min(200, number - at)
            queue.enqueue_many([Queue.prepare_data(PATH, result_ttl=0) for _ in range(size)])

    produce(many, lambda sent: queue.enqueue(PATH, sent, result_ttl=0))


PATH = "verification.benchmarks.competitors.apps.rq_app.noop"

if __name__ == "__main__":
    main()
