"""Grafana's JSON of a dashboard, made with ``grafana-foundation-sdk``. Only this module imports this SDK.

The JSON has no ``__inputs``: the variable ``datasource`` selects the Prometheus, so that a plain Grafana can import the
file as it is.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    bargauge,
    common,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as model_common
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as model_prometheus

from dashboards.model import NAMESPACE_MATCHER, POOL_MATCHER, SCRAPE_INTERVAL, Dashboard, Kind, Panel
from daybreak_server.observability.promql import scoped

RUNBOOKS = "https://daybreak.dev/docs/runbooks"
"""Where panels and alerts link to; the chart's ``monitoring.runbookUrl`` replaces it."""
_SOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
_KEPT = "${__url_time_range}&${datasource:queryparam}&${namespace:queryparam}&${pool:queryparam}"
_REDUCE = common.ReduceDataOptions().calcs(["lastNotNull"]).values(False)
_GREEN, _ORANGE, _RED, _NEUTRAL = "green", "orange", "red", "blue"

ANNOTATIONS = (
    (
        "Alerts",
        "red",
        'ALERTS{HERE,alertname=~"Daybreak.+",alertstate="firing"}',
        "{{alertname}}",
        "{{severity}} {{pool}}",
    ),
    (
        "Wakes",
        "blue",
        "max by (namespace, pool) (daybreak_wake_elapsed_seconds{POOL}) > 0",
        "Wake of {{pool}}",
        "",
    ),
    (
        "Releases",
        "purple",
        "max by (namespace, version) (daybreak_build_info{HERE}) unless "
        "max by (namespace, version) (daybreak_build_info{HERE} offset 5m)",
        "Version {{version}}",
        "",
    ),
)
"""Name, colour, query, title and text of the marks on all graphs."""


def as_json(dashboard: Dashboard, titles: dict[str, str]) -> str:
    """The dashboard as Grafana's JSON. ``titles``: the uid of each dashboard → its title, for links."""
    made = (
        build.Dashboard(dashboard.title)
        .uid(dashboard.uid)
        .description(dashboard.description)
        .tags(["daybreak"])
        .readonly()
        .refresh("30s")
        .time(dashboard.from_, "now")
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .variables(_variables(by_tenant=dashboard.by_tenant))
        .links(_links(dashboard, titles))
    )
    number = 0
    for row in dashboard.rows:
        number += 1
        made.with_row(build.Row(row.title).id(number))
        for panel in row.panels:  # beside the row, not inside it: a row that contains its panels is collapsed
            number += 1
            made.with_panel(_panel(panel, dashboard, titles).id(number))
    document = json.loads(JSONEncoder(sort_keys=True).encode(made.build()))
    document["annotations"] = {"list": [_annotation(*parts) for parts in ANNOTATIONS]}
    return _in_lines(document)


def _in_lines(document: dict[str, Any]) -> str:
    """JSON with a line for each panel, and a line for every other key, so that a diff shows what changed."""
    panels = ",\n".join(f"  {_compact(panel)}" for panel in document.pop("panels"))
    rest = [f" {_compact(key)}: {_compact(value)}" for key, value in document.items()]
    return ",\n".join(["{\n" + rest[0], *rest[1:], f' "panels": [\n{panels}\n ]\n}}\n'])


def _compact(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, sort_keys=True)


def _annotation(name: str, color: str, expression: str, title: str, text: str) -> dict[str, Any]:
    """An annotation, as a dict: the SDK's type lacks the titles and texts that Grafana's Prometheus plugin reads."""
    return {
        "name": name,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "enable": True,
        "hide": False,
        "iconColor": color,
        "expr": scoped(expression, here=NAMESPACE_MATCHER, pool=POOL_MATCHER),
        "step": "30s",
        "titleFormat": title,
        "textFormat": text,
        "tagKeys": "pool",
    }


def _variables(*, by_tenant: bool) -> list[Any]:
    variables: list[Any] = [
        build.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _query_variable(
            "namespace", "Namespace", "label_values(daybreak_redis_up, namespace)", several=False
        ),
        _query_variable(
            "pool", "Pool", f"label_values(daybreak_pool_live_tasks{{{NAMESPACE_MATCHER}}}, pool)"
        ),
    ]
    if by_tenant:
        source = f"label_values(daybreak_tenant_gpu_seconds_total{{{POOL_MATCHER}}}, tenant)"
        variables.append(_query_variable("tenant", "Tenant", source))
    return variables


def _query_variable(name: str, label: str, source: str, *, several: bool = True) -> Any:
    """A variable for the values of a label. If ``several``, users may select several, and at first all are selected."""
    made = (
        build.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": source, "refId": name})
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )
    if several:
        made.multi(True).include_all(True).all_value(".*")
        made.current(model.VariableOption(selected=True, text="All", value="$__all"))
    return made


def _links(dashboard: Dashboard, titles: dict[str, str]) -> list[Any]:
    links = [_link_to(uid, titles) for uid in dashboard.deeper]
    runbooks = build.DashboardLink("Runbooks").type(model.DashboardLinkType.LINK).icon("doc").url(RUNBOOKS)
    return [*links, runbooks.target_blank(True)]


def _link_to(uid: str, titles: dict[str, str]) -> Any:
    link = build.DashboardLink(titles[uid].removeprefix("Daybreak / ")).type(model.DashboardLinkType.LINK)
    return link.icon("dashboard").url(f"/d/{uid}?{_KEPT}")


def _panel(panel: Panel, dashboard: Dashboard, titles: dict[str, str]) -> Any:
    made = _drawn(panel)
    made.title(panel.title).description(panel.description).datasource(_SOURCE).unit(panel.unit.value)
    made.height(panel.height).span(panel.width)
    for beginning, color in panel.colors.items():
        fixed = model.DynamicConfigValue(id_val="color", value={"mode": "fixed", "fixedColor": color})
        made.override_by_regexp(f"/^{beginning}/", [fixed])
    for index, query in enumerate(panel.queries):
        target = (
            prometheus.Dataquery()
            .datasource(_SOURCE)
            .expr(query.grafana)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + index))
            .interval(SCRAPE_INTERVAL)
        )
        if panel.kind in {Kind.BARS, Kind.TABLE, Kind.NUMBER}:
            target.instant()
        if panel.kind is Kind.TABLE:
            target.format(model_prometheus.PromQueryFormat.TABLE)
        made.with_target(target)
    made.thresholds(_thresholds(panel))
    if panel.no_value:
        made.no_value(panel.no_value)
    links = [_link_to(uid, titles) for uid in ([panel.deeper] if panel.deeper else dashboard.deeper[:1])]
    if panel.runbook:
        url = f"{RUNBOOKS}#{panel.runbook}"
        runbook = build.DashboardLink("Runbook").type(model.DashboardLinkType.LINK).url(url)
        links.insert(0, runbook.target_blank(True))
    return made.links(links)


def _drawn(panel: Panel) -> Any:
    if panel.kind is Kind.NUMBER:
        number = stat.Panel().reduce_options(_REDUCE).graph_mode(model_common.BigValueGraphMode.NONE)
        return number.color_mode(model_common.BigValueColorMode.VALUE)
    if panel.kind is Kind.BARS:
        bars = bargauge.Panel().reduce_options(_REDUCE).min(0)
        return bars.orientation(model_common.VizOrientation.HORIZONTAL)
    if panel.kind is Kind.TABLE:
        return _table(panel)
    if panel.kind is Kind.TIMELINE:
        timeline = statetimeline.Panel().show_value(model_common.VisibilityMode.NEVER).row_height(0.8)
        return timeline.fill_opacity(80).line_width(0)
    lines = timeseries.Panel().line_width(1).min(0).show_points(model_common.VisibilityMode.NEVER)
    legend = common.VizLegendOptions().display_mode(model_common.LegendDisplayMode.LIST)
    lines.legend(legend.placement(model_common.LegendPlacement.BOTTOM).show_legend(True))
    lines.tooltip(common.VizTooltipOptions().mode(model_common.TooltipDisplayMode.MULTI))
    if panel.kind is Kind.AREAS:
        return lines.fill_opacity(40).stacking(
            common.StackingConfig().mode(model_common.StackingMode.NORMAL).group("A")
        )
    if panel.alarm is not None or panel.warn is not None:
        style = common.GraphThresholdsStyleConfig().mode(model_common.GraphThresholdsStyleMode.DASHED)
        lines.thresholds_style(style)
    return lines.fill_opacity(5)


def _table(panel: Panel) -> Any:
    """A column for each label, and a column for each query. The title of a query's column is the query's legend."""
    made = table.Panel()
    several = len(panel.queries) > 1
    names = [f"Value #{chr(ord('A') + index)}" if several else "Value" for index in range(len(panel.queries))]
    titles = {name: query.legend for name, query in zip(names, panel.queries, strict=True)}
    if several:
        made.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    organize = {"excludeByName": {"Time": True}, "renameByName": titles}
    made.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
    if panel.runbook_of_row:
        link = {"title": "Runbook", "url": f"{RUNBOOKS}#${{__data.fields.runbook}}", "targetBlank": True}
        made.override_by_regexp("/^alertname$/", [model.DynamicConfigValue(id_val="links", value=[link])])
        hidden = model.DynamicConfigValue(id_val="custom.hidden", value=True)
        made.override_by_regexp("/^(runbook|firing)$/", [hidden])
    return made


def _thresholds(panel: Panel) -> Any:
    """Green, orange, red from low to high; the other way round if low values are bad.

    A panel without limits gets one colour, because without thresholds Grafana would draw values above 80 in red.
    """
    warn, alarm = panel.warn, panel.alarm
    steps: Sequence[tuple[float | None, str]]
    if warn is not None and alarm is not None and alarm < warn:
        steps = [(None, _RED), (alarm, _ORANGE), (warn, _GREEN)]
    else:
        limits = [(value, color) for value, color in ((warn, _ORANGE), (alarm, _RED)) if value is not None]
        steps = [(None, _GREEN if limits else _NEUTRAL), *limits]
    made = [model.Threshold(value=value, color=color) for value, color in steps]
    return build.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(made)
