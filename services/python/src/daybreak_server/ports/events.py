"""The event streams of tasks and pools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.tasks import (
    EventRecord,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events of one task. ``trimmed``: history between ``after`` and the first of them has been dropped."""

    events: tuple[EventRecord, ...]
    trimmed: bool = False


class EventLog(Protocol):
    """The event streams."""

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """The task's own events behind ``after`` (exclusive; ``None`` = from the beginning), in order."""

    async def tail(self, pool: str) -> str:
        """The id of the pool's newest event (``0-0`` when there is none): where a live reader begins."""

    def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """All events of the pool behind ``after`` as they come, in order, by a blocking read.

        Outages are ridden out. :raises EventsTrimmedError: when events in between have been dropped."""
