"""The dashboard of the API, its event streams, and Redis."""

from __future__ import annotations

from dashboards.model import Dashboard, Kind, Panel, Row, Unit, quantiles, query
from daybreak_server.observability.alerts import API_REQUESTS, FAILED_REQUESTS

_OBJECTIVE = 0.001
"""The share of requests that may fail: 0.1 %, because ``monitoring.alerts.availability`` is 0.999 by default."""


def _burn(window: str) -> str:
    return (
        f"(sum(rate({FAILED_REQUESTS}[{window}])) or vector(0)) / (sum(rate({API_REQUESTS}[{window}])) > 0) "
        f"/ {_OBJECTIVE}"
    )


_API = Row(
    title="API",
    panels=(
        Panel(
            title="Requests by route",
            shows="HTTP requests per second, by method and route, including probes and scrapes.",
            bad="A route that suddenly dominates: a client polls instead of following a stream.",
            unit=Unit.PER_SECOND,
            runbook="daybreakapierrorbudgetfast",
            queries=(
                query(
                    "sum by (method, route) (rate(daybreak_http_requests_total{HERE}[$__rate_interval]))",
                    "{{method}} {{route}}",
                ),
            ),
        ),
        Panel(
            title="Refused and failed requests",
            shows="Requests per second that were answered with an error, by status and code.",
            bad="`store_unavailable`: Redis or the files cannot be reached. `queue_full`: the queue has reached its "
            "limit, or Redis is out of memory. `internal`: a bug, whose traceback is in the log.",
            unit=Unit.PER_SECOND,
            runbook="daybreakapierrorbudgetfast",
            queries=(
                query(
                    "sum by (status, code) "
                    '(rate(daybreak_http_requests_total{HERE,status=~"[45].."}[$__rate_interval]))',
                    "{{status}} {{code}}",
                ),
            ),
        ),
        Panel(
            title="Burn rate of the error budget",
            shows="How fast failed requests use up an error budget of 0.1 %, the default. At 1, the budget lasts "
            "exactly 30 days. Probes, requests under `/v1/pools/<pool>/serve`, and `queue_full` do not count.",
            bad="Above 14.4 in both 5 min and 1 h, or above 6 in both 30 min and 6 h: an alert fires.",
            unit=Unit.COUNT,
            runbook="daybreakapierrorbudgetfast",
            warn=1,
            alarm=14.4,
            queries=tuple(query(_burn(window), window) for window in ("5m", "30m", "1h", "6h")),
        ),
        Panel(
            title="Latency",
            shows="Median and 95th percentile of the time until the response began, by route, "
            "without probes.",
            bad="A p95 above 100 ms for `POST /v1/tasks`: look at Redis's scripts below.",
            unit=Unit.SECONDS,
            width=12,
            pictured=True,
            queries=quantiles(
                'daybreak_http_request_seconds{HERE,route!~"/healthz|/readyz|/metrics"}', "method, route"
            ),
        ),
        Panel(
            title="Ticks",
            shows="Ticks of the queue per second, by outcome. The lag is the time since the last successful tick of "
            "the gateway that is furthest behind.",
            bad="`failed` ticks. No `done` ticks for 3 min: retries, deadlines and leases do not advance. A lag above "
            "60 s while other gateways tick: one gateway does not reach Redis.",
            unit=Unit.COUNT,
            runbook="daybreaktickslate",
            width=12,
            queries=(
                query(
                    "sum by (outcome) (rate(daybreak_ticks_total{POOL}[$__rate_interval]))",
                    "ticks per second: {{outcome}}",
                ),
                query("max by (namespace, pool) (daybreak_tick_lag_seconds{POOL})", "{{pool}} lag in s"),
            ),
        ),
    ),
)

_STREAMS = Row(
    title="Streams",
    panels=(
        Panel(
            title="Subscribers",
            shows="Open streams, by kind: events of tasks (`sse`, `ws`), and WebSockets of sessions (`session`).",
            bad="A sudden fall: clients were disconnected. A rise without an end: clients do not close streams.",
            unit=Unit.COUNT,
            kind=Kind.AREAS,
            queries=(query("sum by (kind) (daybreak_stream_subscribers{HERE})", "{{kind}}"),),
        ),
        Panel(
            title="Events and resets",
            shows="Events sent to subscribers per second, and subscribers that missed some and got the state instead.",
            bad="Resets: subscribers read too slowly, or the gateway is overloaded.",
            unit=Unit.PER_SECOND,
            runbook="daybreakstreamresets",
            queries=(
                query("sum(rate(daybreak_stream_events_total{HERE}[$__rate_interval]))", "events"),
                query("sum(rate(daybreak_stream_resets_total{HERE}[$__rate_interval]))", "resets"),
            ),
        ),
        Panel(
            title="Lag of streams",
            shows="Median and 95th percentile of the time from an event's entry in Redis until a gateway read it.",
            bad="Above 1 s: the gateway has too little CPU, or Redis is slow.",
            unit=Unit.SECONDS,
            runbook="daybreakstreamresets",
            pictured=True,
            queries=quantiles("daybreak_stream_lag_seconds{POOL}", "pool"),
        ),
    ),
)

_REDIS = Row(
    title="Redis",
    panels=(
        Panel(
            title="Memory",
            shows="Memory that Redis uses, and its limit, if it has one.",
            bad="Above 80 % of the limit. At the limit Redis accepts no new tasks, sessions or audio; running tasks "
            "continue.",
            unit=Unit.BYTES,
            runbook="daybreakredismemory",
            pictured=True,
            queries=(
                query("max(daybreak_redis_memory_bytes{HERE})", "used"),
                query("max(daybreak_redis_memory_limit_bytes{HERE}) > 0", "limit"),
            ),
        ),
        Panel(
            title="CPU of the main thread",
            shows="Share of one CPU that Redis's main thread uses. It runs all scripts, one after the other.",
            bad="Above 80 %: this thread limits all pools together.",
            unit=Unit.RATIO,
            warn=0.6,
            alarm=0.8,
            queries=(
                query("max(rate(daybreak_redis_cpu_seconds_total{HERE}[$__rate_interval]))", "main thread"),
            ),
        ),
        Panel(
            title="Append-only file",
            shows="Whether Redis writes its append-only file, and whether the last write and the last rewrite "
            "succeeded.",
            bad="`healthy` 0: the disk is full or broken. `enabled` 0: a restart of Redis loses tasks.",
            unit=Unit.YES_NO,
            runbook="daybreakredisaof",
            warn=1,
            alarm=0.5,
            queries=(
                query("min(daybreak_redis_aof_enabled{HERE})", "enabled"),
                query("min(daybreak_redis_aof_healthy{HERE})", "healthy"),
            ),
        ),
        Panel(
            title="Size of the append-only file",
            shows="Size of Redis's append-only file on its disk.",
            bad="Near the size of its volume.",
            unit=Unit.BYTES,
            runbook="daybreakredisaof",
            queries=(query("max(daybreak_redis_aof_bytes{HERE})", "file"),),
        ),
        Panel(
            title="Connections",
            shows="Connections to Redis.",
            bad="Near `maxclients` (10,000 by default), or a rise without an end.",
            unit=Unit.COUNT,
            queries=(query("max(daybreak_redis_clients{HERE})", "connections"),),
        ),
        Panel(
            title="Errors of scripts",
            shows="Failed calls of Redis scripts per second, by script; 0 if no call has ever failed.",
            bad="Any: Redis was unreachable, out of memory, or refused the call.",
            unit=Unit.PER_SECOND,
            runbook="daybreakredisdown",
            queries=(
                query(
                    "sum by (script) (rate(daybreak_redis_script_errors_total{HERE}[$__rate_interval])) "
                    "or vector(0)",
                    "{{script}}",
                ),
            ),
        ),
        Panel(
            title="Time of scripts, gateways",
            shows="Median and 95th percentile of the round trip of a call, by script, as gateways measure it.",
            bad="All scripts slow: Redis or the network. One script slow: it does too much at once.",
            unit=Unit.SECONDS,
            width=12,
            queries=quantiles("daybreak_redis_script_seconds{HERE}", "script"),
        ),
        Panel(
            title="Time of scripts, groups",
            shows="Median and 95th percentile of the round trip of a call, by script, as leaders of groups measure it.",
            bad="Slow here and not at gateways: the network of the GPU nodes, or a host with too little free CPU.",
            unit=Unit.SECONDS,
            width=12,
            queries=quantiles("daybreak_rank_script_seconds{POOL}", "script"),
        ),
    ),
)

API = Dashboard(
    uid="daybreak-api",
    title="Daybreak / API, streams and Redis",
    description="How the API answers, whether streams keep up, and the state of Redis.",
    deeper=("daybreak-pool", "daybreak-ray"),
    rows=(_API, _STREAMS, _REDIS),
)
