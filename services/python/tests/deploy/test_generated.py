"""The generated files of `deploy` match their sources."""

from __future__ import annotations

import subprocess
import sys

import pytest
from deploy_chart import REPOSITORY


def check(tool: str) -> None:
    done = subprocess.run(
        [sys.executable, f"tools/{tool}.py", "--check"],
        check=False,
        cwd=REPOSITORY,
        text=True,
        capture_output=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_charts_schema_table_and_crd_match_their_sources() -> None:
    """And every value has a description, which the README shows."""
    check("chart")


@pytest.mark.usefixtures("helm")
def test_the_plain_manifests_match_the_chart() -> None:
    """deploy/keda and deploy/raycluster."""
    check("manifests")
