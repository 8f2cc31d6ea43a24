"""Spares a rank the import of scipy, which takes almost a second of CPU time.

diffusers imports ``scipy.stats`` beside each of its schedulers, but a scheduler uses it only for beta sigmas, which no
released Wan model has. Whether scipy is installed is noted in a private variable of diffusers, which decides on the
import. If another version of diffusers has no such variable, the rank only starts later.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def avoid_scipy(scheduler_config: Mapping[str, Any]) -> None:
    """Let diffusers do without scipy in this process, unless the scheduler needs it. Call this before the first import
    of a scheduler."""
    from diffusers.utils import import_utils

    if not scheduler_config.get("use_beta_sigmas") and hasattr(import_utils, "_scipy_available"):
        import_utils._scipy_available = False
