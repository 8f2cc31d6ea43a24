"""Fixtures for the operator's tests."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from operator_cluster import api, namespace

__all__ = ["api", "namespace"]
