"""The dashboard of serving pools and models: requests, the waiting line, groups that answer, batches, and models."""

from __future__ import annotations

from dashboards.model import (
    BAD,
    BUSY,
    FINE,
    GOOD,
    KUBERNETES,
    LATE,
    NONE,
    Dashboard,
    Kind,
    Panel,
    Row,
    Unit,
    quantiles,
    query,
)
from dashboards.serving_batches import BATCHES
from dashboards.serving_models import MODELS
from daybreak_server.observability.promql import grown

_OUTCOMES = {
    "answered": GOOD,
    "queue_full": LATE,
    "not_ready": "#c2410c",
    "deadline_passed": BUSY,
    "shutting_down": FINE,
    "group_failed": BAD,
    "cut_off": "#7f1d1d",
    "client_gone": NONE,
}
_RETRIES = {"busy": LATE, "leaves": FINE, "unreachable": "#c2410c", "no_answer": BAD}
_ENDED = "daybreak_router_requests_total"
_SERVING = "and on (namespace, pool) max by (namespace, pool) (daybreak_router_ready_groups{POOL})"
"""Keeps only pools that answer requests: other pools have no router."""


def _gpus(metric: str) -> str:
    return f"({grown(metric, '1h', matchers='POOL')} / 3600) {_SERVING}"


_REQUESTS = Row(
    title="Requests",
    panels=(
        Panel(
            title="Requests by outcome",
            shows="Ended requests to serving pools, per second. `answered`: the group's answer was passed on, "
            "whatever its status. `client_gone`: the client did not wait for the answer. The panel "
            "*Refused and failed* describes the other outcomes.",
            bad="`answered` that falls while the demand does not.",
            unit=Unit.PER_SECOND,
            kind=Kind.AREAS,
            colors=_OUTCOMES,
            runbook="daybreakrequestslate",
            pictured=True,
            queries=(query(f"sum by (outcome) (rate({_ENDED}{{POOL}}[$__rate_interval]))", "{{outcome}}"),),
        ),
        Panel(
            title="Refused and failed",
            shows="Requests per second that got no complete answer. `queue_full`: the waiting line was full. "
            "`not_ready`: no group was free in time. `deadline_passed`: the group did not answer in time. "
            "`group_failed`: groups broke while they had the request, and no try was left. `cut_off`: the answer was "
            "interrupted. `shutting_down`: the gateway was ending.",
            bad="Any of them for longer than a few minutes, except `shutting_down` during a rollout, and `not_ready` "
            "during a wake.",
            unit=Unit.PER_SECOND,
            colors=_OUTCOMES,
            runbook="daybreakrequestsrefused",
            pictured=True,
            queries=(
                query(
                    f'sum by (outcome) (rate({_ENDED}{{POOL,outcome!~"answered|client_gone"}}[$__rate_interval]))',
                    "{{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Time to first byte",
            shows="Median, 95th and 99th percentile of the time from the arrival of a request to the first byte of its "
            "answer, including the time in the waiting line.",
            bad="A p99 near the deadlines of your clients. If *First byte, in groups* is low, the waiting line is "
            "long.",
            unit=Unit.SECONDS,
            runbook="daybreakrequestslate",
            pictured=True,
            queries=quantiles("daybreak_router_first_byte_seconds{POOL}", "pool", at=(0.5, 0.95, 0.99)),
        ),
    ),
)

_LINE = Row(
    title="Line and demand",
    panels=(
        Panel(
            title="Requests in the line",
            shows="Requests that wait in gateways for a free group.",
            bad="Above 0 for long: the pool needs more groups, or its groups are slow.",
            unit=Unit.COUNT,
            runbook="daybreaklinestuck",
            pictured=True,
            queries=(query("sum by (pool) (daybreak_router_waiting_requests{POOL})", "{{pool}}"),),
        ),
        Panel(
            title="Oldest request in the line",
            shows="How long the oldest request has waited; 0 means that none waits.",
            bad="A curve that rises as fast as time passes: no request leaves the waiting line.",
            unit=Unit.SECONDS,
            runbook="daybreaklinestuck",
            pictured=True,
            queries=(
                query("max by (namespace, pool) (daybreak_router_oldest_wait_seconds{POOL})", "{{pool}}"),
            ),
        ),
        Panel(
            title="Time in the line",
            shows="Median, 95th and 99th percentile of the time that requests waited, without those that did not wait.",
            bad="Several seconds outside a wake: lower `targetLoad`, so that more groups are wanted.",
            unit=Unit.SECONDS,
            runbook="daybreakrequestslate",
            queries=quantiles("daybreak_router_wait_seconds{POOL}", "pool", at=(0.5, 0.95, 0.99)),
        ),
        Panel(
            title="In flight and capacity",
            shows="Requests that are in groups, and the number of requests that the ready groups can hold at once.",
            bad="At the capacity while requests wait: more groups are needed. Far below it while requests wait: see "
            "*Retries by reason*.",
            unit=Unit.COUNT,
            colors={".* in flight": FINE, ".* capacity": NONE},
            runbook="daybreaklinestuck",
            pictured=True,
            queries=(
                query("sum by (pool) (daybreak_router_in_flight_requests{POOL})", "{{pool}} in flight"),
                query(
                    f"max by (namespace, pool) (daybreak_pool_capacity_requests{{POOL}}) {_SERVING}",
                    "{{pool}} capacity",
                ),
            ),
        ),
        Panel(
            title="Demand and groups",
            shows="How many groups the requests need (`needed`, KEDA's value), how many the operator wants (`wanted`), "
            "and how many are `ready`. `usable`: the number of groups to which a gateway can send requests. If "
            "gateways differ, the lowest number counts.",
            bad="`needed` above `wanted`: KEDA does not scale, or `maxGroups` is reached. `usable` below `ready` for "
            "more than a few seconds: groups drain, or a gateway cannot connect to them.",
            unit=Unit.COUNT,
            runbook="daybreaknotscaling",
            deeper="daybreak-wake",
            pictured=True,
            queries=(
                query(
                    f"max by (namespace, pool) (daybreak_groups_needed{{POOL}}) {_SERVING}",
                    "{{pool}} needed",
                ),
                query(
                    "max by (namespace, pool) (daybreak_groups_wanted{POOL})",
                    "{{pool}} wanted",
                    no_data=KUBERNETES,
                ),
                query(
                    f"max by (namespace, pool) (daybreak_groups_ready{{POOL}}) {_SERVING}", "{{pool}} ready"
                ),
                query("min by (namespace, pool) (daybreak_router_ready_groups{POOL})", "{{pool}} usable"),
            ),
        ),
        Panel(
            title="Retries by reason",
            shows="Tries per second that ended without an answer, by what the group did: it was `busy` or "
            "`unreachable`, it `leaves` the pool, or it broke and gave `no_answer`.",
            bad="`no_answer`: groups break. `unreachable`: a network policy, or a host that died. `busy` all the time: "
            "something other than the gateways sends requests to groups.",
            unit=Unit.PER_SECOND,
            colors=_RETRIES,
            runbook="daybreakrouterretries",
            pictured=True,
            queries=(
                query(
                    "sum by (reason) (rate(daybreak_router_retries_total{POOL}[$__rate_interval]))",
                    "{{reason}}",
                ),
            ),
        ),
    ),
)

_GROUPS = Row(
    title="Groups that answer",
    panels=(
        Panel(
            title="Requests in each group",
            shows="Requests that each group holds, by the pod of its leader.",
            bad="One group far above the others: with the policy `session` or `prefix`, many requests have the same "
            "session or prefix; with any other policy, try a different one. One group at 0 while others are full: "
            "gateways cannot reach it.",
            unit=Unit.COUNT,
            runbook="daybreakrouterretries",
            pictured=True,
            queries=(
                query(
                    "max by (namespace, pool, pod) (daybreak_rank_in_flight_requests{POOL})",
                    "{{pool}} {{pod}}",
                ),
            ),
        ),
        Panel(
            title="Answers of groups",
            shows="Requests per second that ended in groups, by outcome. `busy` and `other` (meant for a group that "
            "had this address before): the group refused the request without running it. `draining`: the group "
            "refused the request, or stopped it because the group left or broke. The router tries such requests on "
            "other groups, unless their answer has begun.",
            bad="`failed`: the workload raises errors, or requests hang. `gone`: clients do not wait for answers.",
            unit=Unit.PER_SECOND,
            runbook="daybreakrequestsfail",
            queries=(
                query(
                    "sum by (outcome) (rate(daybreak_rank_requests_total{POOL}[$__rate_interval]))",
                    "{{outcome}}",
                ),
            ),
        ),
        Panel(
            title="First byte, in groups",
            shows="Median and 95th percentile of the time from a request's arrival in its group to the first byte "
            "of its answer.",
            bad="A step upwards: larger requests, a slower model, or too many requests at once (`capacity`).",
            unit=Unit.SECONDS,
            queries=quantiles("daybreak_rank_first_byte_seconds{POOL}", "pool"),
        ),
        Panel(
            title="Whole answer, in groups",
            shows="Median and 95th percentile of the time from a request's arrival in its group to the last byte "
            "of its answer.",
            bad="A step upwards while the first byte is as fast as before: longer answers, or slow clients.",
            unit=Unit.SECONDS,
            width=12,
            queries=quantiles("daybreak_rank_request_seconds{POOL}", "pool"),
        ),
        Panel(
            title="Tokens",
            shows="Tokens per second that workloads report: those that they read (`input`) and produced (`output`). "
            "0 if a workload reports none.",
            bad="`output` that falls while the number of requests in groups does not: a slower model, or larger "
            "requests.",
            unit=Unit.PER_SECOND,
            width=12,
            queries=(
                query(
                    "sum by (pool, kind) (rate(daybreak_rank_tokens_total{POOL}[$__rate_interval]))",
                    "{{pool}} {{kind}}",
                ),
            ),
        ),
        Panel(
            title="GPUs that answer, and idle ones",
            shows="GPUs of groups that held at least one request (`answering`), and of groups that held none (`idle`). "
            "The values are the mean of the last hour, from a sample every five seconds.",
            bad="Mostly `idle`: shorten `scaling.cooldownPeriod`, or lower `minWarm`. Never `idle`: requests will "
            "soon have to wait.",
            unit=Unit.GPUS,
            kind=Kind.AREAS,
            colors={".* answering": GOOD, ".* idle": NONE},
            runbook="daybreakgpuwaste",
            deeper="daybreak-cost",
            width=24,
            pictured=True,
            queries=(
                query(_gpus("daybreak_gpu_used_seconds_total"), "{{pool}} answering"),
                query(_gpus("daybreak_gpu_idle_seconds_total"), "{{pool}} idle"),
            ),
        ),
    ),
)

SERVING = Dashboard(
    uid="daybreak-serving",
    title="Daybreak / Serving",
    description="Requests to serving pools and models: how they end, how long they wait, how busy the groups are, and "
    "whether models have replicas.",
    deeper=("daybreak-pool", "daybreak-wake", "daybreak-cost"),
    rows=(_REQUESTS, _LINE, _GROUPS, BATCHES, MODELS),
)
