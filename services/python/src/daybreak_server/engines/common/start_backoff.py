"""How long a group that cannot load its model waits before it starts again."""

from __future__ import annotations

_BACKOFF_S = (3.0, 6.0, 12.0, 24.0, 48.0)


def start_backoff_s(failures: int) -> float:
    """Seconds to wait after a group has failed to load its model ``failures`` times in a row."""
    return _BACKOFF_S[min(failures, len(_BACKOFF_S)) - 1]
