"""Tests that the generated files of ``deploy`` match their sources."""

from __future__ import annotations

import subprocess
import sys

import pytest
from deploy_chart import REPOSITORY


def check(tool: str) -> None:
    result = subprocess.run(
        [sys.executable, f"tools/{tool}.py", "--check"],
        check=False,
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


def test_the_charts_schema_table_and_crd_match_their_sources() -> None:
    """The check also fails if a value has no description for the README."""
    check("chart")


@pytest.mark.usefixtures("helm")
def test_the_plain_manifests_match_the_chart() -> None:
    """The manifests in deploy/keda and deploy/raycluster are generated from the chart."""
    check("manifests")


def test_the_dashboards_and_alerts_match_their_sources() -> None:
    check("monitoring")
