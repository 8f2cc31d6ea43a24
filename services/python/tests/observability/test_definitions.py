"""Tests of the definitions of dashboards and alerts: names, labels, links, and files that a plain Grafana imports."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import yaml
from dashboards import ALL
from dashboards.model import GPU, KUBERNETES, SCRAPE_INTERVAL
from queries import of_alerts, of_annotations, of_panels

from daybreak.wire.errors import ErrorCode
from daybreak.wire.models import RegisterModelRequest
from daybreak_server.cli.settings import setting_names
from daybreak_server.observability import catalogue, prometheus_rules
from daybreak_server.observability.prometheus_rules import Place, rule
from daybreak_server.observability.promql import metric_names, scoped, seconds, shortened
from daybreak_server.ports.metrics import Metric, MetricType, Source
from daybreak_server.workloads.embed.spec import EmbedOptions

REPOSITORY = Path(__file__).parents[4]
RUNBOOKS = (REPOSITORY / "docs" / "runbooks.md").read_text()
ANCHORS = {
    re.sub(r"[^\w -]", "", heading).strip().lower().replace(" ", "-")
    for heading in re.findall(r"^#+ (.+)$", RUNBOOKS, re.MULTILINE)
}
FILES = sorted((REPOSITORY / "deploy/helm/daybreak/files/dashboards").glob("*.json"))
QUERIES = [*of_panels(), *of_annotations(), *of_alerts()]
OF_TARGETS = {"namespace", "job", "instance", "pod", "le"}
"""Labels that Prometheus adds, and the bound of a histogram's bucket."""
LABEL_VALUES = {"waiting_group", "lease_lost", "claim_lost", "cut_off", "client_gone", "no_answer"}
"""Label values that look like names of settings."""
each = pytest.mark.parametrize


def declared(name: str) -> Metric | None:
    """The declaration of the metric of a series. The series of a histogram have suffixes after the metric's name."""
    for metric in catalogue.ALL:
        series = [metric.name]
        if metric.type is MetricType.HISTOGRAM:
            series = [metric.name + suffix for suffix in ("_bucket", "_sum", "_count")]
        if name in series:
            return metric
    return None


@each("query", QUERIES, ids=lambda query: query.by)
def test_every_metric_and_label_of_a_query_is_declared(query) -> None:
    names = metric_names(query.expression)
    assert names, query.expression
    ours = {name for name in names if name.startswith("daybreak_")}
    assert {name for name in ours if declared(name) is None} == set()
    if ours == names - {"up", "ALERTS"}:
        labels = {label for name in ours for label in declared(name).labels} | OF_TARGETS
        labels |= {"alertname", "alertstate", "severity", "runbook", "pool"} if "ALERTS" in names else set()
        used = set(re.findall(r"(\w+)(?:=~|!=|!~|=)\"", query.expression))
        used |= {
            label
            for group in re.findall(r"\b(?:by|on|without) \(([^)]*)\)", query.expression)
            for label in group.split(", ")
        }
        assert used - labels == set()


@each("query", QUERIES, ids=lambda query: query.by)
def test_a_maximum_over_gateways_keeps_every_label_of_a_count(query) -> None:
    """If a query for waste dropped the label ``cause``, it would show only the largest cause, not the sum of all."""
    for inner in re.finditer(
        r"m(?:ax|in) by \(([^)]*)\) \((?:rate\(|m(?:ax|in)_over_time\()?(\w+)\{([^}]*)\}", query.expression
    ):
        metric = declared(inner[2])
        if metric is None or not counts(metric):
            continue
        fixed = set(re.findall(r"(\w+)=\"", inner[3]))
        assert set(metric.labels) - fixed <= set(inner[1].split(", ")), inner[0]


@each("query", QUERIES, ids=lambda query: query.by)
def test_no_query_adds_up_what_every_gateway_exports(query) -> None:
    sums = re.findall(r"sum(?: by \([^)]*\))? ?\((?:rate\(|increase\()?(daybreak_\w+)\{", query.expression)
    assert [name for name in sums if declared(name).source is Source.REDIS] == []


def test_only_the_hardware_of_gpus_has_no_data_in_any_run() -> None:
    """``test_live`` and the end-to-end tests prove that all other queries have data."""
    unproven = {(query.by, query.no_data) for query in of_panels() if query.no_data not in ("", KUBERNETES)}
    assert unproven == {("Daybreak / Ray / GPU", GPU), ("Daybreak / Ray / GPU memory", GPU)}


@each("query", QUERIES, ids=lambda query: query.by)
def test_no_query_takes_the_increase_of_what_every_gateway_exports(query) -> None:
    """`increase` sees only what happened since the oldest gateway started. `promql.grown` sees the whole window."""
    increases = re.findall(r"increase\((daybreak_\w+)\{", query.expression)
    assert [name for name in increases if declared(name).source is Source.REDIS] == []


def counts(metric: Metric) -> bool:
    return metric.type is not MetricType.GAUGE or metric.name.endswith(("_tasks", "_groups"))


@each("alert", prometheus_rules.ALL, ids=lambda alert: alert.name)
def test_every_alert_has_a_runbook_a_dashboard_a_severity_and_a_duration(alert) -> None:
    made = rule(alert, Place())
    entry = RUNBOOKS.partition(f"### {alert.name}\n")[2].partition("\n### ")[0]
    assert [
        part for part in ("**Cause:**", "**Check:**", "**Fix:**", "**Until then:**") if part not in entry
    ] == []
    assert made["annotations"]["runbook_url"].endswith(f"/runbooks#{alert.anchor}")
    assert alert.dashboard in {dashboard.uid for dashboard in ALL}
    assert made["annotations"]["dashboard_url"].startswith(f"/d/{alert.dashboard}?")
    assert made["labels"]["severity"] in {"critical", "warning", "info"}
    assert seconds(made["for"]) >= 60


def test_no_two_alerts_have_the_same_name() -> None:
    names = [alert.name for alert in prometheus_rules.ALL]
    assert len(names) == len(set(names))


@each("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_every_panel_says_its_unit_and_what_is_bad_and_links_to_pages_that_exist(dashboard) -> None:
    titles = [panel.title for panel in dashboard.panels]
    assert len(titles) == len(set(titles))
    uids = {other.uid for other in ALL}
    assert set(dashboard.deeper) <= uids - {dashboard.uid}
    for panel in dashboard.panels:
        assert panel.shows.endswith("."), panel.title
        assert panel.bad.endswith("."), panel.title
        assert not panel.runbook or panel.runbook in ANCHORS, panel.title
        assert not panel.deeper or panel.deeper in uids - {dashboard.uid}, panel.title
        assert panel.queries, panel.title


def paths(value: object, at: str = "") -> Iterator[str]:
    """The paths of all values in a mapping, such as ``pools.video.minWarm``."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from (path := f"{at}{key}", *paths(inner, f"{path}."))


def ends(names: Iterable[str]) -> set[str]:
    """The names, with and without the parts before a dot: a text may leave out the pool or the section."""
    return {name.split(".", left)[left] for name in names for left in range(name.count(".") + 1)}


@each("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_a_panel_names_only_settings_that_exist(dashboard) -> None:
    values = yaml.safe_load((REPOSITORY / "deploy/helm/daybreak/values.yaml").read_text())
    known = ends(setting_names()) | ends(paths(values)) | set(ErrorCode) | LABEL_VALUES
    known |= set(RegisterModelRequest.model_fields) | set(EmbedOptions.model_fields)
    for panel in dashboard.panels:
        named = re.findall(r"`([a-z]\w*(?:[._]\w+|[A-Z]\w*)+)`", panel.description)
        assert set(named) <= known, panel.title


@each("dashboard", ALL, ids=lambda dashboard: dashboard.uid)
def test_no_panel_blames_a_setting_of_the_head_for_idle_groups(dashboard) -> None:
    """`idle.afterSeconds` only delays the stop of the Ray head. `scaling.cooldownPeriod` sets how long the last idle
    group stays."""
    assert [panel.title for panel in dashboard.panels if "idle.afterSeconds" in panel.description] == []


@each("path", FILES, ids=lambda path: path.stem)
def test_a_dashboards_file_imports_into_a_plain_grafana(path: Path) -> None:
    """Grafana asks for nothing at the import: there are no inputs, and the data source is a variable."""
    document = json.loads(path.read_text())
    assert not {"__inputs", "__requires", "__elements"} & set(document)
    assert document.get("id") is None
    assert document["uid"] == path.stem
    assert document["schemaVersion"] >= 39
    sources = re.findall(r'"datasource": \{"type": "prometheus", "uid": "([^"]*)"\}', path.read_text())
    assert set(sources) == {"${datasource}"}
    variables = [variable["name"] for variable in document["templating"]["list"]]
    assert variables[:3] == ["datasource", "namespace", "pool"]
    assert [mark["name"] for mark in document["annotations"]["list"]] == ["Alerts", "Wakes", "Releases"]
    panels = document["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        if panel["type"] != "row":
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert "**Bad:**" in panel["description"]
            assert panel["links"]
            used = set(re.findall(r"\$(\w+)", json.dumps(panel["targets"])))
            assert used <= {*variables, "__rate_interval", "__range", "datasource"}
            limits = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
            assert limits, "if a panel has no limits, Grafana draws its values above 80 in red"
            assert {target["interval"] for target in panel["targets"]} == {SCRAPE_INTERVAL}


def test_a_dashboard_shows_one_namespace_at_a_time() -> None:
    """With several namespaces, each sum on the dashboard would include several installations of Daybreak."""
    for path in FILES:
        variables = {each["name"]: each for each in json.loads(path.read_text())["templating"]["list"]}
        assert not variables["namespace"].get("multi")
        assert not variables["namespace"].get("includeAll")
        assert variables["pool"]["includeAll"]


def test_each_row_of_the_table_of_alerts_links_to_its_runbook() -> None:
    """The link is made from a label of the rule, because a table has no access to annotations."""
    overview = json.loads(next(path for path in FILES if path.stem == "daybreak-overview").read_text())
    table = next(panel for panel in overview["panels"] if panel["title"] == "Alerts that fire")
    assert "#${__data.fields.runbook}" in json.dumps(table["fieldConfig"]["overrides"])
    for alert in prometheus_rules.ALL:
        assert rule(alert, Place())["labels"]["runbook"] in ANCHORS


def test_panels_do_not_overlap() -> None:
    for path in FILES:
        taken: dict[tuple[int, int], str] = {}
        for panel in json.loads(path.read_text())["panels"]:
            place = panel["gridPos"]
            for x in range(place["x"], place["x"] + place["w"]):
                for y in range(place["y"], place["y"] + place["h"]):
                    assert x < 24, panel["title"]
                    assert (x, y) not in taken, f"{panel['title']} covers {taken.get((x, y))}"
                    taken[x, y] = panel["title"]


@each(
    ("expression", "here", "result"),
    [
        ("daybreak_x{HERE}", "", "daybreak_x{}"),
        ("daybreak_x{HERE}", 'namespace="a"', 'daybreak_x{namespace="a"}'),
        ('daybreak_x{HERE,state="b"}', "", 'daybreak_x{state="b"}'),
        ('daybreak_x{HERE,state="b"}', 'namespace="a"', 'daybreak_x{namespace="a",state="b"}'),
    ],
)
def test_a_marker_becomes_the_matcher_of_the_namespace(expression: str, here: str, result: str) -> None:
    assert scoped(expression, here=here) == result


def test_a_factor_shortens_windows_but_not_below_six_seconds() -> None:
    assert shortened("rate(x[1h]) + rate(y[10m])", 60) == "rate(x[60s]) + rate(y[10s])"
    assert shortened("rate(x[5m])", 1000) == "rate(x[6s])"
    assert shortened("rate(x[5m])", 1) == "rate(x[5m])"


@each("duration", ["", "5", "m", "1.5h", "5w"])
def test_what_is_not_a_duration_is_refused(duration: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        seconds(duration)
