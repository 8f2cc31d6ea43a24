"""Records when the work last advanced, and how long it may take to advance again.

The work thread beats the heartbeat whenever work has advanced: for example at each step, after each part of an upload,
and while a model downloads. Each beat may name the activity that begins now and set the limit for it. For example, the
limit of a step is ``stall_s`` (on followers twice that), the limit of loading a model is ``load_stall_s``, and the
limit of an upload is the time that an S3 client needs to give up. An activity that does not beat within its limit has
stalled.

Other threads and one other process read the heartbeat:

* the lease renewer renews leases until the group has stalled, and then breaks the group;
* Ray Serve's health check fails for a rank that has stalled (``Rank.unhealthy_reason`` in ``ranks/rank_lifecycle.py``);
* the watchdog reads a copy in shared memory (:class:`Mirror`), because no thread of this process can run while a call
  in C holds Python's lock. The watchdog renews leases for a leader in such a call. If a leader has stalled and has
  not ended some seconds later, the watchdog kills it.

A beat says only that work advances. It never extends a lease by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

FOREVER_S = 10 * 365 * 86400.0
"""The limit of an activity that may take any time, such as waiting for the next order."""


class Mirror(Protocol):
    """A copy of the heartbeat that another process can read."""

    def write(self, *, beat_at: float, limit_s: float, activity: str) -> None:
        """Record a beat."""


class Heartbeat:
    """The work thread calls :meth:`beat`; other threads read the result."""

    def __init__(
        self, limit_s: float, *, clock: Callable[[], float] = time.monotonic, mirror: Mirror | None = None
    ) -> None:
        self._clock = clock
        self._mirror = mirror
        self._lock = threading.Lock()
        self._beat_at = clock()
        self._limit_s = limit_s
        self._activity = "starting"
        self._update_mirror()

    def beat(self, activity: str | None = None, *, limit_s: float | None = None) -> None:
        """Record that the work has advanced.

        :param activity: What begins now; by default the present activity continues.
        :param limit_s: How long it may take until the next beat; by default the present limit stays.
        """
        with self._lock:
            self._beat_at = self._clock()
            if activity is not None:
                self._activity = activity
            if limit_s is not None:
                self._limit_s = limit_s
            self._update_mirror()

    def _update_mirror(self) -> None:
        if self._mirror is not None:
            self._mirror.write(beat_at=self._beat_at, limit_s=self._limit_s, activity=self._activity)

    @contextmanager
    def during(self, activity: str, limit_s: float) -> Iterator[None]:
        """Run an activity with a limit of its own; the present activity and limit return afterwards."""
        with self._lock:
            before = (self._activity, self._limit_s)
        self.beat(activity, limit_s=limit_s)
        try:
            yield
        finally:
            self.beat(before[0], limit_s=before[1])

    @property
    def age_s(self) -> float:
        """Seconds since the work last advanced."""
        return self._clock() - self._beat_at

    def stalled(self) -> str | None:
        """Return what has stalled and for how long, or ``None`` while the work is within its limit."""
        with self._lock:
            silent_s, limit_s, activity = self._clock() - self._beat_at, self._limit_s, self._activity
        if silent_s <= limit_s:
            return None
        return f"no progress in {activity} for {silent_s:.1f} s (the limit is {limit_s:g} s)"
