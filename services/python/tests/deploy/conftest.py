"""Fixtures of the chart's tests. The tests need ``helm``. Without ``helm``, they are skipped."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def helm() -> None:
    """Skip the test if ``helm`` is not installed."""
    if shutil.which("helm") is None:
        pytest.skip("helm is not on PATH: the chart cannot be rendered")
