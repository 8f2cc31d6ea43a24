"""The dashboard of cost: GPU-seconds used, wasted and idle, by pool and by tenant."""

from __future__ import annotations

from dashboards.model import Dashboard, Kind, Panel, Query, Row, Unit, query

_LABELS = {
    "daybreak_gpu_wasted_seconds_total": ("cause",),
    "daybreak_tenant_gpu_seconds_total": ("tenant", "kind"),
}
"""Labels besides the pool, which the maximum over gateways must keep."""


def _sum(metric: str, window: str, by: str = "", matcher: str = "") -> str:
    """GPU-seconds in a window: the maximum over gateways, then the sum over everything but ``by``."""
    labels = ", ".join(("namespace", "pool", *_LABELS.get(metric, ())))
    over = f"sum by ({by})" if by else "sum"
    return f"{over} (max by ({labels}) (increase({metric}{{POOL{matcher}}}[{window}])))"


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
        query(_sum(_USED, window), "used"),
        query(_sum(_WASTED, window, "cause"), "wasted: {{cause}}"),
        query(_sum(_IDLE, window), "idle"),
    )


def _total(window: str, name: str, width: int = 12) -> Panel:
    return Panel(
        title=f"GPU time, {name}",
        shows=f"GPU-seconds of all groups in the last {name}: used for a result, wasted by cause, and idle. Together "
        "they are all the time that groups held GPUs since they registered. Pulling the image and starting Ray come "
        "before that.",
        bad="Little of it is `used`. Idle: shorten `idle.afterSeconds`. Wasted: see the causes.",
        unit=Unit.GPU_SECONDS,
        kind=Kind.BARS,
        runbook="daybreakgpuwaste",
        width=width,
        pictured=window == "24h",
        queries=_all(window),
    )


def _by_pool(metric: str, title: str, shows: str, bad: str) -> Panel:
    return Panel(
        title=title,
        shows=shows,
        bad=bad,
        unit=Unit.GPUS,
        kind=Kind.AREAS,
        runbook="daybreakgpuwaste",
        queries=(query(_sum(metric, "$__rate_interval", "pool").replace("increase", "rate"), "{{pool}}"),),
    )


_TIME = Row(
    title="GPU time",
    panels=(
        _total("24h", "24 hours"),
        _total("7d", "7 days"),
        _by_pool(
            _USED,
            "Used by pool",
            "GPUs that worked for a result, by pool.",
            "Far below the GPUs that are held.",
        ),
        _by_pool(
            _WASTED,
            "Wasted by pool",
            "GPUs whose work led to no result, by pool, starts included.",
            "A rise: attempts are retried or cancelled, tasks fail, or groups start often.",
        ),
        _by_pool(
            _IDLE,
            "Idle by pool",
            "GPUs of groups that hold no task, by pool.",
            "High for hours without tasks.",
        ),
        Panel(
            title="Waste ÷ use, 24 hours",
            shows="Wasted GPU time for each second of used GPU time, over 24 hours, starts included.",
            bad="Above 1: more GPU time is thrown away than used.",
            unit=Unit.RATIO,
            kind=Kind.NUMBER,
            runbook="daybreakgpuwaste",
            warn=0.5,
            alarm=1,
            queries=(query(f"{_sum(_WASTED, '24h', 'pool')} / {_sum(_USED, '24h', 'pool')}", "{{pool}}"),),
        ),
        Panel(
            title="Idle share, 24 hours",
            shows="Share of all GPU time in which groups held no task, over 24 hours.",
            bad="Above 50 %: groups wait for tasks most of the time.",
            unit=Unit.RATIO,
            kind=Kind.NUMBER,
            warn=0.5,
            alarm=0.8,
            queries=(
                query(
                    f"{_sum(_IDLE, '24h', 'pool')} / ({_HELD})",
                    "{{pool}}",
                ),
            ),
        ),
        Panel(
            title="Tasks per GPU hour",
            shows="Tasks that succeeded for each hour of GPU time that was held, over 24 hours.",
            bad="A fall: larger tasks, more waste, or more idle time.",
            unit=Unit.COUNT,
            kind=Kind.NUMBER,
            queries=(
                query(
                    f"3600 * {_SUCCEEDED} / ({_HELD})",
                    "{{pool}}",
                ),
            ),
        ),
    ),
)

_OF_TENANT = ',tenant=~"$tenant"'


def _billed(window: str, name: str) -> Panel:
    return Panel(
        title=f"By tenant, {name}",
        shows=f"GPU-seconds billed to each tenant in the last {name}, used and wasted by retries.",
        bad="A tenant with more waste than use: its tasks are retried.",
        unit=Unit.GPU_SECONDS,
        kind=Kind.TABLE,
        width=12,
        queries=(query(_sum(_TENANT, window, "tenant, kind", _OF_TENANT), "{{tenant}} {{kind}}"),),
    )


_TENANTS = Row(
    title="Tenants",
    panels=(
        _billed("24h", "24 hours"),
        _billed("7d", "7 days"),
        Panel(
            title="Share of the GPU time",
            shows="Each tenant's share of the billed GPU time of its pool.",
            bad="While several tenants wait, a share that differs from the share by weight beside it.",
            unit=Unit.RATIO,
            kind=Kind.AREAS,
            width=12,
            pictured=True,
            queries=(
                query(
                    f"{_sum(_TENANT, '$__range', 'namespace, pool, tenant', _OF_TENANT)} / on (namespace, pool) "
                    f"group_left {_sum(_TENANT, '$__range', 'namespace, pool')}",
                    "{{pool}} {{tenant}}",
                ),
            ),
        ),
        Panel(
            title="Share by weight",
            shows="The share that the weight of each tenant whose tasks wait entitles it to.",
            bad="Nothing by itself; compare it with the share beside it.",
            unit=Unit.RATIO,
            kind=Kind.AREAS,
            width=12,
            queries=(
                query(
                    "max by (namespace, pool, tenant) (daybreak_tenant_weight_ratio{POOL}) / "
                    "on (namespace, pool) group_left sum by (namespace, pool) "
                    "(max by (namespace, pool, tenant) (daybreak_tenant_weight_ratio{POOL}))",
                    "{{pool}} {{tenant}}",
                ),
            ),
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
