"""Which tests may be skipped, and why. One that is skipped and not listed fails the run."""

from __future__ import annotations

from typing import Final

ALLOWED: Final[dict[str, str]] = {}
"""Name of the test → the reason that it gives."""
