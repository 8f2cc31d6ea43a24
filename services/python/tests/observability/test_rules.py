"""Prometheus' own tool tests the rules of the alerts. Each alert fires when it should, not earlier, and resolves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import batch_rule_cases
import model_rule_cases
import pytest
import rule_cases
import serving_rule_cases
import session_rule_cases
import yaml
from queries import of_annotations, of_panels
from rule_cases import Case

from daybreak_server.observability import prometheus_rules
from daybreak_server.observability.prometheus_rules import Place, rule_groups
from daybreak_server.observability.promql import grown

CASES = {
    **rule_cases.CASES,
    **serving_rule_cases.CASES,
    **batch_rule_cases.CASES,
    **model_rule_cases.CASES,
    **session_rule_cases.CASES,
}
MORE_CASES = [
    *rule_cases.MORE_CASES,
    *serving_rule_cases.MORE_CASES,
    *batch_rule_cases.MORE_CASES,
    *model_rule_cases.MORE_CASES,
    *session_rule_cases.MORE_CASES,
]


def promtool(*arguments: str | Path) -> str:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is not on PATH; on Debian: apt-get install prometheus")
    result = subprocess.run(["promtool", *map(str, arguments)], check=False, text=True, capture_output=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def write_rules(folder: Path, place: Place) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": rule_groups(place)}))
    return path


@pytest.mark.parametrize("factor", [1, 120])
def test_promtool_accepts_the_rules(tmp_path: Path, factor: int) -> None:
    output = promtool("check", "rules", write_rules(tmp_path, Place(here='namespace="n"', factor=factor)))
    assert f"{len(prometheus_rules.ALL)} rules found" in output


def test_promtool_accepts_every_query_of_a_panel(tmp_path: Path) -> None:
    """The test passes the queries to promtool as recording rules. ``test_live`` shows that the queries return data."""
    queries = [*of_panels(), *of_annotations()]
    rules = [{"record": f"r{number}", "expr": query.expression} for number, query in enumerate(queries)]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "panels", "rules": rules}]}))
    assert f"{len(queries)} rules found" in promtool("check", "rules", path)


def test_every_alert_has_a_case() -> None:
    assert set(CASES) == {alert.name for alert in prometheus_rules.ALL}


@pytest.mark.parametrize("name", CASES)
def test_an_alert_fires_in_its_fault_and_resolves_after_it(tmp_path: Path, name: str) -> None:
    check_case(tmp_path, name, CASES[name])


@pytest.mark.parametrize(
    ("name", "case"),
    [(name, case) for name, _, case in MORE_CASES],
    ids=[f"{name}: {what}" for name, what, _ in MORE_CASES],
)
def test_an_alert_also_knows_the_other_cases(tmp_path: Path, name: str, case: Case) -> None:
    check_case(tmp_path, name, case)


def test_a_total_is_complete_although_its_gateways_were_replaced(tmp_path: Path) -> None:
    """Three gateways run for a day each, one after the other. They export one total, which grows by 60 per minute."""
    days = {"a": "0+60x1440 _x2880", "b": "_x1440 86400+60x1440 _x1440", "c": "_x2880 172800+60x1440"}
    series = [
        {"series": f'x_total{{namespace="n", pool="video", pod="{pod}"}}', "values": values}
        for pod, values in days.items()
    ]
    check = {
        "expr": grown("x_total", "3d", matchers='namespace="n"'),
        "eval_time": "4320m",
        "exp_samples": [{"labels": '{namespace="n", pool="video"}', "value": 3 * 86400}],
    }
    path = tmp_path / "test.yaml"
    path.write_text(
        yaml.safe_dump({"tests": [{"interval": "1m", "input_series": series, "promql_expr_test": [check]}]})
    )
    promtool("test", "rules", path)


def check_case(folder: Path, name: str, case: Case) -> None:
    """Check one alert. The file has only its rule, because the evaluation of all rules over days takes seconds."""
    (alert,) = (alert for alert in prometheus_rules.ALL if alert.name == name)
    groups = [{"name": "one", "rules": [prometheus_rules.rule(alert, Place(here='namespace="n"'))]}]
    (folder / "rules.yaml").write_text(yaml.safe_dump({"groups": groups}))
    path = folder / "test.yaml"
    path.write_text(yaml.safe_dump(unit_test(name, case)))
    promtool("test", "rules", path)


def unit_test(name: str, case: Case) -> dict[str, Any]:
    series = [
        {"series": series.replace("{", '{namespace="n", ', 1).replace(", }", "}"), "values": values}
        for series, values in case.series.items()
    ]
    expected = [(minute, 0) for minute in case.quiet]
    if case.fires is not None:
        expected.append((case.fires, 1))
    firing = f'count(ALERTS{{alertname="{name}", alertstate="firing", namespace="n"}}) or vector(0)'
    checks = [
        {"expr": firing, "eval_time": f"{minute}m", "exp_samples": [{"labels": "{}", "value": value}]}
        for minute, value in expected
    ]
    return {
        "rule_files": ["rules.yaml"],
        "evaluation_interval": "1m",
        "tests": [{"interval": "1m", "input_series": series, "promql_expr_test": checks}],
    }
