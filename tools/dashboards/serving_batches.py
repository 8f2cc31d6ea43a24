"""The row of the dashboard *Serving* about pools that embed or rerank, whose groups compute in batches."""

from __future__ import annotations

from dashboards.model import BAD, LATE, Panel, Row, Unit, quantiles, query

BATCHES = Row(
    title="Batches, of pools that embed or rerank",
    panels=(
        Panel(
            title="Items in a batch",
            shows="Mean and 95th percentile of the number of texts that a group computes together.",
            bad="Near 1 while items wait: `max_batch_size` or `max_batch_tokens` is too small, or the texts "
            "that wait differ too much in length to share a batch (`similar`).",
            unit=Unit.COUNT,
            width=12,
            pictured=True,
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_rank_batch_items_sum{POOL}[$__rate_interval])) / sum by (pool) "
                    "(rate(daybreak_rank_batch_items_count{POOL}[$__rate_interval]))",
                    "{{pool}} mean",
                ),
                *quantiles("daybreak_rank_batch_items{POOL}", "pool", at=(0.95,)),
            ),
        ),
        Panel(
            title="Duration of a batch",
            shows="Median and 95th percentile of how long a group computes a batch.",
            bad="A step upwards while batches have as many items as before: longer texts, or other "
            "work on the device.",
            unit=Unit.SECONDS,
            width=12,
            queries=quantiles("daybreak_rank_batch_seconds{POOL}", "pool"),
        ),
        Panel(
            title="Wait for a batch",
            shows="The longest wait of a text for its batch: median and 90th percentile over the batches. Texts of "
            "bulk work, which fill the rest of a batch, do not count.",
            bad="Longer than a few batches take: more groups are needed. Near `batch_timeout_ms` in the mode `timed`: "
            "too few requests come to fill a batch. With a shorter timeout, answers come sooner.",
            unit=Unit.SECONDS,
            runbook="daybreakbatcheswait",
            width=12,
            pictured=True,
            queries=quantiles("daybreak_rank_batch_wait_seconds{POOL}", "pool", at=(0.5, 0.9)),
        ),
        Panel(
            title="Failed batches, and refused requests",
            shows="Batches per second that raised an error, and requests per second that groups refused with 429, "
            "because more than `max_waiting` texts would wait.",
            bad="Any `failed`: the batch is computed again in halves, until the text that fails is alone. `refused` "
            "that stays above 0: more groups are needed.",
            unit=Unit.PER_SECOND,
            colors={".* failed": BAD, ".* refused": LATE},
            runbook="daybreakbatchesfail",
            width=12,
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_rank_batch_failures_total{POOL}[$__rate_interval]))",
                    "{{pool}} failed",
                ),
                query(
                    "sum by (pool) (rate(daybreak_rank_batch_refused_total{POOL}[$__rate_interval]))",
                    "{{pool}} refused",
                ),
            ),
        ),
        Panel(
            title="Lines of files",
            shows="Lines per second that tasks over files have written. Each line has a result, or the error of its "
            "input line.",
            bad="Many `failed`: the model cannot use these lines; the output files say why. Near 0 while a task "
            "runs: requests fill all batches, so more groups are needed.",
            unit=Unit.PER_SECOND,
            colors={".* failed": LATE},
            width=12,
            queries=(
                query(
                    "sum by (pool, outcome) (rate(daybreak_rank_task_lines_total{POOL}[$__rate_interval]))",
                    "{{pool}} {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Items that wait for a batch",
            shows="Texts that each group has accepted but not begun, as of its last batch.",
            bad="A number that stays above the size of a few batches: more groups are needed, or a lower `capacity`. "
            "At `max_waiting`, the group refuses requests.",
            unit=Unit.COUNT,
            runbook="daybreakitemsrefused",
            width=12,
            queries=(
                query(
                    "max by (namespace, pool, pod) (daybreak_rank_batch_waiting{POOL})",
                    "{{pool}} {{pod}}",
                ),
            ),
        ),
        Panel(
            title="Found in the cache",
            shows="Share of the texts whose vector was in the cache of their group. Empty without a cache.",
            bad="Near 0: the cache costs memory for nothing, so turn it off (`cache_mb: 0`).",
            unit=Unit.RATIO,
            width=6,
            queries=(
                query(
                    "sum by (pool) (rate(daybreak_rank_cache_lookups_total{POOL, outcome='hit'}[$__rate_interval])) "
                    "/ sum by (pool) (rate(daybreak_rank_cache_lookups_total{POOL}[$__rate_interval]))",
                    "{{pool}}",
                ),
            ),
        ),
        Panel(
            title="Memory of the caches",
            shows="Memory that the cache of each group uses.",
            bad="At the limit (`cache_mb`) while few texts are found: texts rarely repeat, or the cache is too small.",
            unit=Unit.BYTES,
            width=6,
            queries=(
                query(
                    "max by (namespace, pool, pod) (daybreak_rank_cache_bytes{POOL})",
                    "{{pool}} {{pod}}",
                ),
            ),
        ),
    ),
)
