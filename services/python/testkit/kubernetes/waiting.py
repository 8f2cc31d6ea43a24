"""Waits for a condition in a cluster. Each check is a request to the cluster's API server, so pauses are longer
than in ``testkit.waiting``."""

from __future__ import annotations

from functools import partial

from testkit.waiting import wait_until as _wait_until

PAUSE_S = 0.5
wait_until = partial(_wait_until, pause_s=PAUSE_S)
