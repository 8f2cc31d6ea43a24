"""Checks the chart with external tools. A test is skipped with a reason if its tool is not installed."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from deploy_chart import CHART, KINDS, VALUES, render
from deploy_tools import run

every = pytest.mark.parametrize("values", VALUES, ids=lambda path: path.stem.removesuffix("-values"))


def as_yaml(values: Path) -> str:
    return yaml.safe_dump_all(render(values).objects)


@every
def test_helm_lint_passes(values: Path) -> None:
    """In strict mode, warnings fail the check, too."""
    run("helm", "lint", "--strict", CHART, "--values", values)


def test_the_unit_tests_of_the_chart_pass() -> None:
    """helm-unittest can simulate a cluster that already has Secrets and CRDs."""
    output = run("helm-unittest", "--strict", CHART)
    assert "Test Suites: 0 passed" not in output


@pytest.mark.usefixtures("helm")
@every
def test_kube_score_finds_no_critical_problem(values: Path) -> None:
    """The annotations ``kube-score/ignore`` name the exceptions and their reasons."""
    run("kube-score", "score", "-", "--output-format", "ci", stdin=as_yaml(values))


def test_the_tests_assume_exactly_the_kinds_that_templates_check_for() -> None:
    """If a template checked for another kind, the tests would never render what depends on this kind."""
    checked = set()
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            for part in path.read_text().split("APIVersions.Has ")[1:]:
                checked.add(part.split('"')[1])
    in_notes = {
        "ray.io/v1/RayCluster",
        "keda.sh/v1alpha1/ScaledObject",
        "daybreak.dev/v1alpha1/GeneratorPool",
    }
    assert checked - in_notes == set(KINDS)
