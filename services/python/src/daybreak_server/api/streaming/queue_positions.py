"""Tells those who follow a waiting task when its place in the queue or its pool's wake changes."""

from __future__ import annotations

from collections.abc import Callable

from daybreak_server.api import serializers
from daybreak_server.api.store.catalog import PoolViewCache
from daybreak_server.api.streaming import frames
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.subscription import place_frames
from daybreak_server.ports.tasks import TaskStore

LOOKUPS = 100
"""QueuePositions looked up in one round of one pool; more followed tasks take turns."""


class QueuePositions:
    """Looks places up, one round each second. What has not changed is not sent again (see ``Frame.mark``)."""

    def __init__(
        self, hub: Broadcaster, store: TaskStore, numbers: PoolViewCache, now_ms: Callable[[], int]
    ) -> None:
        self._hub = hub
        self._store = store
        self._numbers = numbers
        self._now_ms = now_ms
        self._told: dict[str, tuple[str, str]] = {}
        """Of each pool: the phase of its wake and what keeps it from going on, as they were told last."""

    async def round(self, pool: str) -> None:
        """Look up the places of the followed waiting tasks. :raises StoreUnavailableError:"""
        feed = self._hub.feed(pool)
        for task in list(feed.waiting)[:LOOKUPS]:
            record = await self._store.get(task)
            if feed.waiting.pop(task, False) is False:
                continue  # it has begun, or nobody follows it any more, since we asked
            if record is None or not record.state.waiting:
                continue
            feed.waiting[task] = None  # behind all others: they take turns
            for frame in place_frames(record, self._numbers, self._now_ms()):
                feed.tell(task, frame)

    def waking(self, pool: str) -> bool:
        """Whether somebody waits and watches while the pool gets its first group."""
        view = self._numbers.latest(pool)
        return (
            bool(self._hub.feed(pool).waiting) and view is not None and not serializers.has_ready_group(view)
        )

    async def look(self, pool: str) -> None:
        """Tell of a new phase of the wake, or of what keeps it, without looking places up.

        :raises StoreUnavailableError:
        """
        shown = serializers.wake_of(await self._numbers.refresh(pool), self._now_ms())
        if shown is None or self._told.get(pool) == (told := (shown["phase"], shown.get("message", ""))):
            return
        self._told[pool] = told
        feed = self._hub.feed(pool)
        for task in feed.waiting:
            feed.tell(task, frames.wake(task, shown, self._now_ms()))
