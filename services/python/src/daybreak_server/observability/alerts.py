"""The alerts, defined once.

``tools/monitoring.py`` writes the chart's rules from them. ``tools/reference.py`` writes their table in
docs/runbooks.md, where each alert has an entry. ``daybreakd up --observe`` gives the alerts to a local Prometheus.

An expression is PromQL with these marks: ``HERE`` (see :mod:`~daybreak_server.observability.promql`), ``${name}`` for
a threshold of :class:`Thresholds`, and ``${60s}`` for a number of seconds that tests shorten. The expression returns
one series for each pool, model or other thing that is in trouble, with the labels that identify it.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum

from daybreak_server.observability.promql import grown


class Severity(StrEnum):
    """What an alert asks of people."""

    CRITICAL = "critical"
    """Act now: users are affected, or will be soon."""
    WARNING = "warning"
    """Act within the working day."""
    INFO = "info"
    """For information."""


class Needs(StrEnum):
    """What Prometheus must scrape for an alert. The chart leaves out alerts whose source is not scraped."""

    GATEWAY = "gateway"
    OPERATOR = "operator"
    RAY = "ray"
    KEDA = "keda"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """The numbers that an installation may change: ``monitoring.alerts`` in the chart's values."""

    oldest_wait_seconds: float = 900
    wake_seconds: float = 900
    waste_ratio: float = 0.5
    waste_gpu_seconds: float = 600
    stream_resets: float = 50
    redis_memory_ratio: float = 0.8
    availability: float = 0.999
    failed_requests: float = 10
    late_ratio: float = 0.05
    batch_wait_seconds: float = 5
    session_lag_seconds: float = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """An alert. Its entry in docs/runbooks.md has its name as the heading."""

    name: str
    severity: Severity
    expression: str
    for_: str
    """How long the expression must be true, such as ``5m``."""
    summary: str
    """One sentence for the person on call; ``{pool}`` stands for the pool's name."""
    when: str
    """When it fires, for the table of the runbooks."""
    dashboard: str = "daybreak-overview"
    """The uid of the dashboard that explains it."""
    needs: Needs = Needs.GATEWAY
    about_pool: bool = True
    """Whether the alert has the label ``pool``."""
    needs_kubernetes: str = ""
    """Why the alert cannot fire on one machine. If this is empty, a test makes the alert fire there."""

    @property
    def anchor(self) -> str:
        """The anchor of its entry in docs/runbooks.md."""
        return self.name.lower()


def _pool_max(metric: str, labels: str = "") -> str:
    return f"max by (namespace, pool) ({metric}{{HERE{labels}}})"


def _tasks(state: str) -> str:
    return _pool_max("daybreak_pool_tasks", f',state="{state}"')


def _gpu(metric: str, *labels: str, matchers: str = "HERE") -> str:
    return f"sum by (namespace, pool) ({grown(metric, '6h', *labels, matchers=matchers)})"


_WASTED = _gpu("daybreak_gpu_wasted_seconds_total", "cause", matchers='HERE,cause!="cold_start"')
_USED = _gpu("daybreak_gpu_used_seconds_total")
_CLAIMED = f"sum by (namespace, pool) ({grown('daybreak_task_claims_total', '2m', 'met')})"
_WAKES = _pool_max("daybreak_wake_elapsed_seconds")
REQUESTS = 'daybreak_http_requests_total{HERE,route!~"/healthz|/readyz|/metrics"}'
"""The requests of clients, without those of kubelets and of Prometheus."""
API_REQUESTS = REQUESTS.replace("/metrics", "/metrics|/v1/pools/.*/serve/.*")
"""The requests that count towards the API's objective: all of :data:`REQUESTS` except those under
``/v1/pools/<pool>/serve/``. The excepted requests have their own alerts, and the workload chooses the status of their
answers. Requests to the routes of OpenAI's API count, even if a group or a worker answers them."""
FAILED_REQUESTS = API_REQUESTS.replace("}", ',status=~"5..",code!="queue_full"}')
"""The requests of :data:`API_REQUESTS` that failed. ``queue_full`` is no failure: a full queue must refuse tasks."""


def _burns(window: str, rate: str) -> str:
    """Whether failures of the API use up its error budget more than ``rate`` times as fast as its objective allows."""
    failed = f"sum by (namespace) (rate({FAILED_REQUESTS}[{window}]))"
    every = f"sum by (namespace) (rate({API_REQUESTS}[{window}]))"
    return f"{failed} / {every} > {rate} * (1 - ${{availability}})"


def _budget(*pairs: tuple[str, str, str]) -> str:
    """The multi-window burn rate: the long window shows that the problem matters, the short one that it still exists.

    The alert also needs a minimum number of failures. Otherwise, one failure among few requests would trigger it.
    """
    return " or ".join(
        f"(({_burns(long, rate)}) and ({_burns(short, rate)}) and "
        f"(sum by (namespace) (increase({FAILED_REQUESTS}[{long}])) > ${{failed_requests}}))"
        for rate, long, short in pairs
    )


def _ended(outcomes: str, window: str) -> str:
    """How many requests to groups or models ended within ``window``, by pool. Without ``outcomes``, all count."""
    matcher = f',outcome=~"{outcomes}"' if outcomes else ""
    return f"sum by (namespace, pool) (increase(daybreak_router_requests_total{{HERE{matcher}}}[{window}]))"


def _retried(reasons: str, window: str) -> str:
    """How many tries failed within ``window``, by pool. Only tries that failed for one of ``reasons`` count."""
    return (
        "sum by (namespace, pool) "
        f'(increase(daybreak_router_retries_total{{HERE,reason=~"{reasons}"}}[{window}]))'
    )


def _router(gauge: str) -> str:
    return f"sum by (namespace, pool) (daybreak_router_{gauge}{{HERE}})"


_LATE = _ended("not_ready|deadline_passed", "5m")
_BROKEN = f"({_ended('cut_off|group_failed|internal', '5m')} + {_retried('no_answer', '5m')})"
_AGAIN = _retried("busy|unreachable|no_answer", "5m")
_POOLS_OF_WAKING_MODELS = (
    "label_replace(max by (namespace, model) (max_over_time(daybreak_model_wake_elapsed_seconds{HERE}[5m])) > 0, "
    '"pool", "$1", "model", "(.+)")'
)
"""The models that were waking at some time in the last 5 min. The label ``pool`` is the model's name, as in the metrics
of the router."""
_ANSWERS_BEGUN = "sum by (namespace, pool) (increase(daybreak_router_first_byte_seconds_count{HERE}[3m]))"


ALERTS: tuple[Alert, ...] = (
    Alert(
        name="DaybreakGatewayAbsent",
        severity=Severity.CRITICAL,
        expression="absent(daybreak_redis_up{HERE})",
        for_="5m",
        summary="No Daybreak gateway is scraped; clients may be unable to submit tasks.",
        when="Prometheus has scraped no gateway for 5 min",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakTargetDown",
        severity=Severity.WARNING,
        expression='max by (namespace, job, instance) (up{HERE,job="daybreak"}) == 0',
        for_="10m",
        summary="Prometheus cannot scrape {{ $labels.instance }} ({{ $labels.job }}); its values are missing in "
        "graphs and alerts.",
        when="Prometheus has failed to scrape one of Daybreak's pods for 10 min",
        about_pool=False,
    ),
    Alert(
        name="DaybreakRanksAbsent",
        severity=Severity.WARNING,
        expression=f"({_pool_max('daybreak_groups_ready')} > 0) unless on (namespace, pool) "
        "daybreak_rank_heartbeat_age_seconds{HERE}",
        for_="10m",
        summary="Pool {pool} has ready groups, but Prometheus has no metrics of their ranks.",
        when="for 10 min, a pool has had ready groups, but Prometheus has had no metrics of their ranks",
        dashboard="daybreak-ray",
        needs=Needs.RAY,
    ),
    Alert(
        name="DaybreakQueueStuck",
        severity=Severity.CRITICAL,
        expression=f"({_tasks('queued')} > 0) unless ({_tasks('running')} > 0) unless ({_CLAIMED} > 0) unless "
        f"(({_WAKES} > 0) <= 2 * ${{wake_seconds}})",
        for_="8m",
        summary="Tasks of pool {pool} wait, none runs, and none was claimed for 10 minutes.",
        when="tasks have waited for 10 min, while none ran and none was claimed; during a wake, the alert does not "
        "fire until the wake has lasted longer than twice `monitoring.alerts.wakeSeconds`",
        dashboard="daybreak-pool",
    ),
    Alert(
        name="DaybreakTasksWait",
        severity=Severity.WARNING,
        expression=f"{_pool_max('daybreak_queue_oldest_wait_seconds')} > ${{oldest_wait_seconds}}",
        for_="5m",
        summary="The oldest task of pool {pool} has waited for {{ $value | humanizeDuration }}.",
        when="for 5 min, the oldest task has been waiting longer than `monitoring.alerts.oldestWaitSeconds`",
        dashboard="daybreak-pool",
    ),
    Alert(
        name="DaybreakRequestsRefused",
        severity=Severity.CRITICAL,
        expression=f"{_ended('queue_full', '5m')} > ${{failed_requests}}",
        for_="3m",
        summary="Pool {pool} refused {{ $value | humanize }} requests within 5 minutes, because too many wait.",
        when="for 3 min, gateways have refused more than `monitoring.alerts.failedRequests` requests to a pool within "
        "5 min, because too many waited already",
        dashboard="daybreak-serving",
    ),
    Alert(
        name="DaybreakRequestsLate",
        severity=Severity.CRITICAL,
        expression=f"({_LATE} / {_ended('', '5m')} > ${{late_ratio}}) and ({_LATE} > ${{failed_requests}}) "
        "unless (max by (namespace, pool) (max_over_time(daybreak_wake_elapsed_seconds{HERE}[5m])) > 0) "
        f"unless on (namespace, pool) {_POOLS_OF_WAKING_MODELS}",
        for_="5m",
        summary="{{ $value | humanizePercentage }} of the requests to pool {pool} missed their deadline.",
        when="for 5 min, more than `monitoring.alerts.lateRatio` of a pool's requests have got `not_ready` or "
        "`deadline_passed`, and more than `monitoring.alerts.failedRequests` requests have got one of these in 5 min; "
        "the alert does not fire during a wake, or in the 5 min after it",
        dashboard="daybreak-serving",
    ),
    Alert(
        name="DaybreakLineStuck",
        severity=Severity.CRITICAL,
        expression=f"({_router('waiting_requests')} > 0) and "
        f"({_router('in_flight_requests')} < on (namespace, pool) {_pool_max('daybreak_pool_capacity_requests')}) "
        f"unless ({_ANSWERS_BEGUN} > 0)",
        for_="3m",
        summary="{{ $value | humanize }} requests to pool {pool} wait, and none is answered. Groups have room.",
        when="for 3 min, requests have waited although ready groups had room, and no answer has begun within 3 min",
        dashboard="daybreak-serving",
    ),
    Alert(
        name="DaybreakRequestsFail",
        severity=Severity.WARNING,
        expression=f"({_BROKEN} / {_ended('', '5m')} > 0.01) and ({_BROKEN} > ${{failed_requests}})",
        for_="10m",
        summary="{{ $value | humanizePercentage }} of the requests to pool {pool} got no answer, or only a part of it.",
        when="for 10 min, more than 1 % of a pool's requests, and more than `monitoring.alerts.failedRequests` "
        "requests in 5 min, have got no answer from a group, or only a part of the answer; every failed try counts",
        dashboard="daybreak-serving",
    ),
    Alert(
        name="DaybreakRouterRetries",
        severity=Severity.WARNING,
        expression=f"({_AGAIN} / ({_AGAIN} + {_ended('', '5m')}) > 0.5) and ({_AGAIN} > ${{failed_requests}})",
        for_="10m",
        summary="{{ $value | humanizePercentage }} of the requests sent to groups of pool {pool} are refused or fail.",
        when="for 10 min, groups have refused or not answered more than half of the requests that gateways sent them, "
        "and more than `monitoring.alerts.failedRequests` requests in 5 min",
        dashboard="daybreak-serving",
    ),
    Alert(
        name="DaybreakWakeSlow",
        severity=Severity.WARNING,
        expression=f"{_WAKES} > ${{wake_seconds}}",
        for_="1m",
        summary="The wake of pool {pool} has lasted {{ $value | humanizeDuration }}.",
        when="a wake has lasted longer than `monitoring.alerts.wakeSeconds`",
        dashboard="daybreak-wake",
    ),
    Alert(
        name="DaybreakGroupsRestart",
        severity=Severity.WARNING,
        expression=f"{grown('daybreak_groups_lost_total', '30m')} >= 2",
        for_="1m",
        summary="Pool {pool} has lost {{ $value | humanize }} groups within 30 minutes.",
        when="a pool has lost at least 2 groups within 30 min",
        dashboard="daybreak-pool",
    ),
    Alert(
        name="DaybreakLeasesLost",
        severity=Severity.WARNING,
        expression=f"{grown('daybreak_leases_lost_total', '30m')} > 0",
        for_="1m",
        summary="Attempts of pool {pool} lost their lease; their tasks got a strike and run again.",
        when="an attempt has lost its lease within 30 min",
        dashboard="daybreak-pool",
    ),
    Alert(
        name="DaybreakDeadLetters",
        severity=Severity.INFO,
        expression=grown("daybreak_tasks_ended_total", "15m", matchers='HERE,state="failed"') + " > 0",
        for_="1m",
        summary="Tasks of pool {pool} failed permanently.",
        when="tasks have failed permanently within 15 min",
        dashboard="daybreak-pool",
    ),
    Alert(
        name="DaybreakGpuWaste",
        severity=Severity.WARNING,
        expression=f"({_WASTED} / ({_WASTED} + {_USED}) > ${{waste_ratio}}) and "
        f"({_WASTED} > ${{waste_gpu_seconds}})",
        for_="15m",
        summary="{{ $value | humanizePercentage }} of the GPU time of attempts of pool {pool} led to no result.",
        when="for 15 min, more than `monitoring.alerts.wasteRatio` of the GPU time of attempts in 6 h has led to no "
        "result, and this was more than `monitoring.alerts.wasteGpuSeconds` GPU-seconds",
        dashboard="daybreak-cost",
    ),
    Alert(
        name="DaybreakStreamResets",
        severity=Severity.WARNING,
        expression="sum by (namespace) (increase(daybreak_stream_resets_total{HERE}[10m])) > ${stream_resets}",
        for_="5m",
        summary="{{ $value | humanize }} subscribers were reset within 10 minutes; streams cannot keep up.",
        when="for 5 min, more than `monitoring.alerts.streamResets` subscribers were reset within 10 min",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakTicksLate",
        severity=Severity.CRITICAL,
        expression='sum by (namespace, pool) (increase(daybreak_ticks_total{HERE,outcome="done"}[2m])) == 0',
        for_="1m",
        summary="No tick of pool {pool} has succeeded for 3 minutes; retries, deadlines and leases do not advance.",
        when="no tick of a pool has succeeded for 3 min",
        dashboard="daybreak-api",
    ),
    Alert(
        name="DaybreakRedisDown",
        severity=Severity.CRITICAL,
        expression="max by (namespace) (daybreak_redis_up{HERE}) == 0",
        for_="1m",
        summary="No gateway reaches Redis; new tasks are refused, and accepted ones wait.",
        when="no gateway has reached Redis for 1 min",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakRedisMemory",
        severity=Severity.WARNING,
        expression="max by (namespace) (daybreak_redis_memory_bytes{HERE}) / "
        "(max by (namespace) (daybreak_redis_memory_limit_bytes{HERE}) > 0) > ${redis_memory_ratio}",
        for_="5m",
        summary="Redis uses {{ $value | humanizePercentage }} of its memory; at 100 % it accepts no new tasks, "
        "sessions or audio.",
        when="for 5 min, Redis has used more than `monitoring.alerts.redisMemoryRatio` of its memory limit",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakRedisAof",
        severity=Severity.CRITICAL,
        expression="(min by (namespace) (daybreak_redis_aof_healthy{HERE}) == 0) or "
        "(min by (namespace) (daybreak_redis_aof_enabled{HERE}) == 0)",
        for_="2m",
        summary="Redis's append-only file is off or failing; a restart may lose accepted tasks.",
        when="for 2 min, Redis's append-only file has been off, or its last write or rewrite has failed",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakApiErrorBudgetFast",
        severity=Severity.CRITICAL,
        expression=_budget(("14.4", "1h", "5m"), ("6", "6h", "30m")),
        for_="2m",
        summary="The API fails so often that its error budget of 30 days is gone within days.",
        when="for 2 min, requests to the API have failed more than 14.4 times as often as its objective allows "
        "(over 1 h), or more than 6 times as often (over 6 h), and more than `monitoring.alerts.failedRequests` "
        "of them failed",
        dashboard="daybreak-api",
        about_pool=False,
    ),
    Alert(
        name="DaybreakApiErrorBudgetSlow",
        severity=Severity.WARNING,
        expression=_budget(("3", "1d", "2h"), ("1", "3d", "6h")),
        for_="15m",
        summary="The API fails more often than its error budget allows.",
        when="for 15 min, requests to the API have failed more than 3 times as often as its objective allows "
        "(over 1 day), or more often than it allows (over 3 days), and more than `monitoring.alerts.failedRequests` "
        "of them failed",
        dashboard="daybreak-api",
        about_pool=False,
    ),
)
"""The alerts about gateways, tasks, requests, groups and Redis. Those about batches are in ``alerts_batches``, those
about models on workers in ``alerts_models``, those about streaming sessions in ``alerts_sessions``, and those that only
Kubernetes can cause in ``alerts_kubernetes``."""


def threshold_names() -> tuple[str, ...]:
    """The names of the thresholds, in order."""
    return tuple(field.name for field in fields(Thresholds))
