"""What tools make for `deploy` is as its sources say."""

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


def test_the_charts_schema_table_and_definition_follow_their_sources() -> None:
    """Also that every value is described, and that the README names it."""
    check("chart")


@pytest.mark.usefixtures("helm")
def test_the_plain_manifests_are_the_charts() -> None:
    """deploy/keda and deploy/raycluster."""
    check("manifests")
