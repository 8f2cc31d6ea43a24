"""Sends ``position`` and ``wake`` frames to the subscribers of waiting tasks when the position or the wake changes."""

from __future__ import annotations

from collections.abc import Callable

from daybreak_server.api import serializers
from daybreak_server.api.intake.catalog import PoolViewCache
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.subscription import position_frames
from daybreak_server.ports.tasks import TaskStore

LOOKUPS = 100
"""The maximum number of a pool's tasks whose positions are looked up in one round. If more wait, they take turns."""


class QueuePositions:
    """Looks up queue positions, one round every second. An unchanged position is not sent (``Frame.dedup_key``)."""

    def __init__(
        self,
        broadcaster: Broadcaster,
        store: TaskStore,
        pool_views: PoolViewCache,
        now_ms: Callable[[], int],
    ) -> None:
        self._broadcaster = broadcaster
        self._store = store
        self._pool_views = pool_views
        self._now_ms = now_ms
        self._last_wake: dict[str, tuple[str, str]] = {}
        """For each pool, the phase and the message of the wake that was sent last."""

    async def publish(self, pool: str) -> None:
        """Look up and send the positions of waiting tasks that have subscribers. :raises StoreUnavailableError:"""
        feed = self._broadcaster.feed(pool)
        for task in list(feed.waiting)[:LOOKUPS]:
            record = await self._store.get(task)
            if feed.waiting.pop(task, False) is False:
                continue  # During the lookup, the task started or its last subscriber left.
            if record is None or not record.state.waiting:
                continue
            feed.waiting[task] = None  # Move the task to the end, so that tasks take turns.
            for frame in position_frames(record, self._pool_views, self._now_ms()):
                feed.publish(task, frame)

    def is_waking(self, pool: str) -> bool:
        """Whether the pool is waking and one of its waiting tasks has subscribers."""
        view = self._pool_views.latest(pool)
        has_waiting = bool(self._broadcaster.feed(pool).waiting)
        return has_waiting and view is not None and not serializers.has_ready_group(view)

    async def publish_wake(self, pool: str) -> None:
        """Send the wake if its phase or message has changed, without looking up positions.

        :raises StoreUnavailableError:
        """
        shown = serializers.wake(await self._pool_views.refresh(pool), self._now_ms())
        if shown is None:
            return
        wake = (shown["phase"], shown.get("message", ""))
        if self._last_wake.get(pool) == wake:
            return
        self._last_wake[pool] = wake
        feed = self._broadcaster.feed(pool)
        for task in feed.waiting:
            feed.publish(task, frames.wake(task, shown, self._now_ms()))
