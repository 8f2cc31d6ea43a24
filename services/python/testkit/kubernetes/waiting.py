"""Wait for a cluster. Each check is a request to its API server, so pauses are longer than in ``testkit.waiting``."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from testkit.waiting import wait_until as _wait_until

PAUSE_S = 0.5
wait_until = partial(_wait_until, pause_s=PAUSE_S)


def stays(predicate: Callable[[], bool], *, for_s: float, what: str, pause_s: float = PAUSE_S) -> None:
    """Assert that ``predicate`` holds at every check for ``for_s`` seconds."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        assert predicate(), f"{what} did not last {for_s:g} s"
        time.sleep(pause_s)
