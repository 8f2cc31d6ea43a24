"""The measurements of a rank whose workload computes in batches.

The items of a batch come from requests and from the files of tasks. No call raises an error.
"""

from __future__ import annotations

from daybreak_server.engines.common.rank_metrics import harmless
from daybreak_server.observability import batch_catalogue as catalogue
from daybreak_server.ports.metrics import Meter

HIT = "hit"
MISS = "miss"


class BatchMetrics:
    """Implements :class:`~daybreak_server.workloads.batch_meter.BatchMeter`, with the metrics ``daybreak_rank_batch…``
    and ``daybreak_rank_cache…``."""

    def __init__(self, meter: Meter, *, pool: str) -> None:
        self._meter = meter
        self._pool = pool

    @harmless
    def begin(self) -> None:
        """Export the counts of failures and refusals as 0, because a rate needs a value from before the first event."""
        for metric in (catalogue.RANK_BATCH_FAILURES, catalogue.RANK_BATCH_REFUSED):
            self._meter.counter(metric, self._pool).inc(0)

    @harmless
    def batch(self, items: int, seconds: float) -> None:
        """A batch of ``items`` items took ``seconds``."""
        self._meter.histogram(catalogue.RANK_BATCH_SIZE, self._pool).observe(items)
        self._meter.histogram(catalogue.RANK_BATCH, self._pool).observe(seconds)

    @harmless
    def waited(self, seconds: float) -> None:
        """The longest wait of an item of a batch was ``seconds``. Items from the file of a task do not count."""
        self._meter.histogram(catalogue.RANK_BATCH_WAIT, self._pool).observe(seconds)

    @harmless
    def failed(self) -> None:
        """A batch has raised an error."""
        self._meter.counter(catalogue.RANK_BATCH_FAILURES, self._pool).inc(1)

    @harmless
    def refused(self) -> None:
        """A request was refused, because too many items wait."""
        self._meter.counter(catalogue.RANK_BATCH_REFUSED, self._pool).inc(1)

    @harmless
    def waiting(self, items: int) -> None:
        """``items`` items wait for a batch now."""
        self._meter.gauge(catalogue.RANK_BATCH_WAITING, self._pool).set(items)

    @harmless
    def cached(self, *, hits: int, misses: int, size_bytes: int) -> None:
        """``hits`` items were found in the cache and ``misses`` were not. The cache takes ``size_bytes`` now."""
        for outcome, count in ((HIT, hits), (MISS, misses)):
            self._meter.counter(catalogue.RANK_CACHE_LOOKUPS, self._pool, outcome).inc(count)
        self._meter.gauge(catalogue.RANK_CACHE_BYTES, self._pool).set(size_bytes)
