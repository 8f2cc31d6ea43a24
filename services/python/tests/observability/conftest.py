"""The generators of dashboards and alerts are tools, outside the packages."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[4] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))
