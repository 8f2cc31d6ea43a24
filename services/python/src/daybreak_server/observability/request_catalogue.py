"""The metrics of groups that answer requests; :mod:`~daybreak_server.observability.catalogue` lists them with the rest.

They count requests, tokens and lines of results, and measure durations and times to the first byte.
"""

from __future__ import annotations

from daybreak_server.ports.metrics import Exporter, Metric, MetricType

_BUCKETS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0),
)
"""The buckets fit everything from a quick lookup to a long generation."""

RANK_REQUESTS = Metric(
    name="daybreak_rank_requests_total",
    type=MetricType.COUNTER,
    help="Requests to a group that have ended, by outcome: `answered`, `failed`, `invalid`, `deadline`, `gone` (the "
    "client left), `busy`, `draining`, `broken` or `other` (meant for another group).",
    labels=("pool", "outcome"),
    exporters=(Exporter.RANK,),
)
RANK_IN_FLIGHT = Metric(
    name="daybreak_rank_in_flight_requests",
    type=MetricType.GAUGE,
    help="Requests that a group holds, those that wait in the group included.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
)
RANK_REQUEST = Metric(
    name="daybreak_rank_request_seconds",
    type=MetricType.HISTOGRAM,
    help="Time from the arrival of a request's headers until the last byte of its answer was sent. Answered requests "
    "only.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
    buckets=_BUCKETS,
)
RANK_FIRST_BYTE = Metric(
    name="daybreak_rank_first_byte_seconds",
    type=MetricType.HISTOGRAM,
    help="Time from the arrival of a request's headers until the first byte of its answer.",
    labels=("pool",),
    exporters=(Exporter.RANK,),
    buckets=_BUCKETS,
)
RANK_TOKENS = Metric(
    name="daybreak_rank_tokens_total",
    type=MetricType.COUNTER,
    help="Tokens that the workload of a group reports, by kind: `input` and `output`. 0 if it reports none.",
    labels=("pool", "kind"),
    exporters=(Exporter.RANK,),
)
RANK_TASK_LINES = Metric(
    name="daybreak_rank_task_lines_total",
    type=MetricType.COUNTER,
    help="Result lines that tasks of a pool of kind `online` have written, by outcome: `computed` and "
    "`failed` (an error in place of a result). Lines after the last checkpoint of a lost attempt count twice.",
    labels=("pool", "outcome"),
    exporters=(Exporter.RANK,),
)

ALL: tuple[Metric, ...] = (
    RANK_REQUESTS,
    RANK_IN_FLIGHT,
    RANK_REQUEST,
    RANK_FIRST_BYTE,
    RANK_TOKENS,
    RANK_TASK_LINES,
)
