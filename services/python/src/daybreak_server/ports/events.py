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
    """Events of one task. ``trimmed``: some events between ``after`` and the first of ``events`` have been deleted."""

    events: tuple[EventRecord, ...]
    trimmed: bool = False


class EventLog(Protocol):
    """Reads the event streams. ``read`` and ``tail`` raise ``StoreUnavailableError`` if the store is unreachable."""

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """The events of a task that follow ``after`` (``None``: from the beginning), in order."""

    async def tail(self, pool: str) -> str:
        """The id of the pool's newest event, after which a live reader begins. ``0-0`` if there is no event."""

    def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """All events of the pool that follow ``after``, in order, as they arrive. Reconnects after outages.

        :raises EventsTrimmedError: when events that were not read yet have been trimmed.
        """
