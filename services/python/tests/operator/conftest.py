"""The operator's plan against a small world of its own."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from operator_cluster import api, namespace

__all__ = ["api", "namespace"]
