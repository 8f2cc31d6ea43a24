"""What other people's tools say of the chart; each is skipped, with a word, where it is not installed."""

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
def test_helm_lint_is_content(values: Path) -> None:
    """Strictly: warnings count."""
    run("helm", "lint", "--strict", CHART, "--values", values)


def test_the_charts_own_unit_tests_pass() -> None:
    """helm-unittest, which can play a cluster that has older Secrets and definitions."""
    said = run("helm-unittest", "--strict", CHART)
    assert "Test Suites: 0 passed" not in said


@pytest.mark.usefixtures("helm")
@every
def test_kube_score_finds_nothing_critical(values: Path) -> None:
    """But what the annotations `kube-score/ignore` name, each beside its reason."""
    run("kube-score", "score", "-", "--output-format", "ci", given=as_yaml(values))


def test_the_kinds_that_tests_assume_are_those_that_templates_ask_for() -> None:
    """A template that asks for another kind would never be rendered here."""
    asked = set()
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            for piece in path.read_text().split("APIVersions.Has ")[1:]:
                asked.add(piece.split('"')[1])
    of_notes = {
        "ray.io/v1/RayCluster",
        "keda.sh/v1alpha1/ScaledObject",
        "daybreak.dev/v1alpha1/GeneratorPool",
    }
    assert asked - of_notes == set(KINDS)
