"""Fixtures of the chart's tests. They need ``helm``, and are skipped with a reason without it."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def helm() -> None:
    """Skip the test without helm."""
    if shutil.which("helm") is None:
        pytest.skip("helm is not on PATH: the chart cannot be rendered")
