"""Wait for a cluster. Each check is a request to its API server, so pauses are longer than in ``testkit.waiting``."""

from __future__ import annotations

from functools import partial

from testkit.waiting import wait_until as _wait_until

PAUSE_S = 0.5
wait_until = partial(_wait_until, pause_s=PAUSE_S)
