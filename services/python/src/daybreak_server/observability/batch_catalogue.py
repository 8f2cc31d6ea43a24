"""The metrics of groups that compute in batches; :mod:`~daybreak_server.observability.catalogue` lists them too."""

from __future__ import annotations

from daybreak_server.ports.metrics import Exporter, Metric, MetricType

RANK_BATCH_SIZE = Metric(
    name="daybreak_rank_batch_items",
    type=MetricType.HISTOGRAM,
    help="Items in a batch, such as texts to embed.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
    buckets=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0),
)
RANK_BATCH = Metric(
    name="daybreak_rank_batch_seconds",
    type=MetricType.HISTOGRAM,
    help="Duration of a batch.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
)
RANK_BATCH_WAIT = Metric(
    name="daybreak_rank_batch_wait_seconds",
    type=MetricType.HISTOGRAM,
    help="Longest time that an item of a batch has waited for the batch. Items of bulk work do not count.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
RANK_BATCH_FAILURES = Metric(
    name="daybreak_rank_batch_failures_total",
    type=MetricType.COUNTER,
    help="Batches that raised an error. The halves of a batch of several items are then computed again.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
)
RANK_BATCH_REFUSED = Metric(
    name="daybreak_rank_batch_refused_total",
    type=MetricType.COUNTER,
    help="Requests that a group refused with 429, because too many items waited (`batching.max_waiting`).",
    labels=("pool",),
    exporters=(Exporter.RANK,),
)
RANK_BATCH_WAITING = Metric(
    name="daybreak_rank_batch_waiting",
    type=MetricType.GAUGE,
    help="Items that wait in a group for a batch.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
)
RANK_CACHE_LOOKUPS = Metric(
    name="daybreak_rank_cache_lookups_total",
    type=MetricType.COUNTER,
    help="Items that were looked up in the cache of a group, by outcome: `hit` and `miss`. 0 without a cache.",
    labels=("pool", "outcome"),
    exporters=(Exporter.RANK,),
)
RANK_CACHE_BYTES = Metric(
    name="daybreak_rank_cache_bytes",
    type=MetricType.GAUGE,
    help="Memory that the cache of a group uses.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
)

ALL: tuple[Metric, ...] = (
    RANK_BATCH_SIZE,
    RANK_BATCH,
    RANK_BATCH_WAIT,
    RANK_BATCH_FAILURES,
    RANK_BATCH_REFUSED,
    RANK_BATCH_WAITING,
    RANK_CACHE_LOOKUPS,
    RANK_CACHE_BYTES,
)
