"""The metrics of routers, for serving pools and for models on workers. For a model, the label ``pool`` is its alias.

``catalogue`` lists them with all other metrics.
"""

from __future__ import annotations

from daybreak_server.ports.metrics import Exporter, Metric, MetricType

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


def _router(name: str, type_: MetricType, text: str, *labels: str, buckets: tuple[float, ...] = ()) -> Metric:
    return Metric(
        name=f"daybreak_router_{name}",
        type=type_,
        help=text,
        labels=("pool", *labels),
        exporters=(Exporter.GATEWAY, Exporter.API_ENTRYPOINT),
        buckets=buckets,
    )


ROUTER_REQUESTS = _router(
    "requests_total",
    MetricType.COUNTER,
    "Ended requests to a serving pool or a model, by outcome: `answered`, `cut_off` (the answer broke off), "
    "`client_gone`, or the code of the error.",
    "outcome",
)
ROUTER_WAITING = _router(
    "waiting_requests", MetricType.GAUGE, "Requests that wait in this gateway for a free group."
)
ROUTER_OLDEST_WAIT = _router(
    "oldest_wait_seconds",
    MetricType.GAUGE,
    "How long the oldest request that waits in this gateway has waited; 0 if none waits.",
)
ROUTER_IN_FLIGHT = _router(
    "in_flight_requests",
    MetricType.GAUGE,
    "Requests that this gateway has sent to groups and whose answers have not ended.",
)
ROUTER_GROUPS = _router("ready_groups", MetricType.GAUGE, "Groups to which this gateway may send requests.")
ROUTER_RETRIES = _router(
    "retries_total",
    MetricType.COUNTER,
    "Tries that ended without an answer, by reason: `busy` (the group was full), `leaves` (the group drains or was "
    "replaced), `unreachable` (no connection to the group), or `no_answer` (the group did not answer).",
    "reason",
)
ROUTER_WAIT = _router(
    "wait_seconds",
    MetricType.HISTOGRAM,
    "How long requests waited for a free group. Requests that did not wait are not counted.",
    buckets=_BUCKETS,
)
ROUTER_FIRST_BYTE = _router(
    "first_byte_seconds",
    MetricType.HISTOGRAM,
    "Time from the arrival of a request to the first byte of its answer.",
    buckets=_BUCKETS,
)

ALL: tuple[Metric, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Metric))
