"""The dashboard of cost: GPU time used, wasted and idle, by pool and by tenant."""

from __future__ import annotations

from dashboards.model import GPU_TIME, Dashboard, Kind, Panel, Query, Row, Unit, query
from daybreak_server.observability.promql import grown

_LABELS = {
    "daybreak_gpu_wasted_seconds_total": ("cause",),
    "daybreak_tenant_gpu_seconds_total": ("tenant", "kind"),
}
"""Metric → the labels, besides the pool, by which :func:`grown` must group this metric."""


def _sum(metric: str, window: str, by: str = "", matcher: str = "") -> str:
    """How much a total grew in a window, summed over all labels except those in ``by``."""
    over = f"sum by ({by})" if by else "sum"
    return f"{over} ({grown(metric, window, *_LABELS.get(metric, ()), matchers=f'POOL{matcher}')})"


def _hours(metric: str, window: str, by: str = "", matcher: str = "") -> str:
    return f"{_sum(metric, window, by, matcher)} / 3600"


_USED, _WASTED, _IDLE = (
    "daybreak_gpu_used_seconds_total",
    "daybreak_gpu_wasted_seconds_total",
    "daybreak_gpu_idle_seconds_total",
)
_TENANT = "daybreak_tenant_gpu_seconds_total"
_HELD = " + ".join(_sum(metric, "24h", "pool") for metric in (_USED, _WASTED, _IDLE))
_SUCCEEDED = _sum("daybreak_tasks_ended_total", "24h", "pool", ',state="succeeded"')


def _all(window: str) -> tuple[Query, ...]:
    return (
        query(_hours(_USED, window), "used"),
        query(_hours(_WASTED, window, "cause"), "wasted: {{cause}}"),
        query(_hours(_IDLE, window), "idle"),
    )


def _total(window: str, name: str) -> Panel:
    return Panel(
        title=f"GPU time, {name}",
        shows=f"GPU-hours of all groups in the last {name}: used for a result, wasted (for each cause), and idle. "
        "Together they are all the time in which registered groups held GPUs. The time before a group registers, in "
        "which the image is pulled and Ray starts, is not included.",
        bad="Little of it is `used`. If much is idle, shorten `scaling.cooldownPeriod`, or lower `minWarm`. If much is "
        "wasted, look at the causes.",
        unit=Unit.GPU_HOURS,
        kind=Kind.BARS,
        colors=GPU_TIME,
        runbook="daybreakgpuwaste",
        width=12,
        pictured=True,
        queries=_all(window),
    )


def _by_pool(metric: str, title: str, shows: str, bad: str) -> Panel:
    return Panel(
        title=title,
        shows=f"{shows}, by pool: the mean of the last hour, because the time of an attempt is added when the "
        "attempt ends.",
        bad=bad,
        unit=Unit.GPUS,
        kind=Kind.AREAS,
        runbook="daybreakgpuwaste",
        pictured=True,
        queries=(query(_hours(metric, "1h", "pool"), "{{pool}}"),),
    )


_TIME = Row(
    title="GPU time",
    panels=(
        _total("24h", "24 hours"),
        _total("7d", "7 days"),
        _by_pool(
            _USED,
            "Used by pool",
            "GPUs that worked for a result",
            "Far below the GPUs that are held.",
        ),
        _by_pool(
            _WASTED,
            "Wasted by pool",
            "GPUs whose work led to no result, including the starts of groups",
            "A rise: attempts are retried or cancelled, tasks fail, or groups start often.",
        ),
        _by_pool(
            _IDLE,
            "Idle by pool",
            "GPUs of groups that hold no task and no request (even if they serve sessions)",
            "Groups hold GPUs for hours without any work: they should have been stopped.",
        ),
        Panel(
            title="Waste ÷ use, 24 hours",
            shows="Wasted GPU time for each second of used GPU time, over 24 hours. Starts of groups count as wasted.",
            bad="Above 1: more GPU time is thrown away than used.",
            unit=Unit.RATIO,
            kind=Kind.NUMBER,
            runbook="daybreakgpuwaste",
            warn=0.5,
            alarm=1,
            no_value="nothing used",
            pictured=True,
            queries=(
                query(f"{_sum(_WASTED, '24h', 'pool')} / ({_sum(_USED, '24h', 'pool')} > 0)", "{{pool}}"),
            ),
        ),
        Panel(
            title="Idle share, 24 hours",
            shows="Share of all GPU time in which groups held no task and no request, over 24 hours. Groups that serve "
            "sessions count as idle.",
            bad="Above 50 %: groups wait for work most of the time.",
            unit=Unit.RATIO,
            kind=Kind.NUMBER,
            warn=0.5,
            alarm=0.8,
            no_value="no GPU held",
            pictured=True,
            queries=(query(f"{_sum(_IDLE, '24h', 'pool')} / ({_HELD} > 0)", "{{pool}}"),),
        ),
        Panel(
            title="Tasks per GPU hour",
            shows="Tasks that succeeded for each hour of GPU time that was held, over 24 hours.",
            bad="A fall: larger tasks, more waste, or more idle time.",
            unit=Unit.COUNT,
            kind=Kind.NUMBER,
            no_value="no GPU held",
            pictured=True,
            queries=(query(f"3600 * {_SUCCEEDED} / ({_HELD} > 0)", "{{pool}}"),),
        ),
    ),
)

_OF_TENANT = ',tenant=~"$tenant"'
_KEPT = "namespace, pool, tenant"
_WEIGHT = f"max by ({_KEPT}) (max_over_time(daybreak_tenant_weight_ratio{{POOL}}[1h]))"
"""The tenants that waited within the last hour, with their weights."""
_GOT = f"({_sum(_TENANT, '1h', _KEPT)} and on ({_KEPT}) {_WEIGHT})"


def _share(series: str) -> str:
    return f"({series} / on (namespace, pool) group_left () (sum by (namespace, pool) ({series}) > 0))"


def _billed(window: str, name: str) -> Panel:
    return Panel(
        title=f"By tenant, {name}",
        shows=f"GPU-hours billed to each tenant in the last {name} (used, or wasted by retries), and the highest "
        "weight that the tenant had while it waited in this time.",
        bad="A tenant with more waste than use: its tasks are retried.",
        unit=Unit.GPU_HOURS,
        kind=Kind.TABLE,
        width=12,
        pictured=window == "24h",
        queries=(
            query(_hours(_TENANT, window, "tenant", f'{_OF_TENANT},kind="used"'), "used"),
            query(_hours(_TENANT, window, "tenant", f'{_OF_TENANT},kind="wasted"'), "wasted"),
            query(
                f"max by (tenant) (max_over_time(daybreak_tenant_weight_ratio{{POOL{_OF_TENANT}}}[{window}]))",
                "weight",
            ),
        ),
    )


_TENANTS = Row(
    title="Tenants",
    panels=(
        _billed("24h", "24 hours"),
        _billed("7d", "7 days"),
        Panel(
            title="Share ÷ share by weight",
            shows="Among the tenants of a pool that waited within the last hour: the share of the billed GPU time that "
            "each got in this hour, divided by the share that its weight entitles it to. 1 is fair.",
            bad="Below 0.5 for a tenant whose tasks have waited for the whole hour: see *Fairness error*. For a tenant "
            "that waited only for a few minutes, a value far from 1 is not unfair.",
            unit=Unit.COUNT,
            width=24,
            deeper="daybreak-pool",
            pictured=True,
            queries=(query(f"{_share(_GOT)} / {_share(_WEIGHT)}", "{{pool}} {{tenant}}"),),
        ),
    ),
)

COST = Dashboard(
    uid="daybreak-cost",
    title="Daybreak / Cost",
    description="Where the GPU time goes: used, wasted, idle, by pool and by tenant.",
    deeper=("daybreak-pool",),
    from_="now-24h",
    by_tenant=True,
    rows=(_TIME, _TENANTS),
)
