"""What keeps the queue moving: ticks, and the deletion of files that retention has ended."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import TickReport


class Housekeeper(Protocol):
    """What keeps the queue moving. Every gateway calls it each second; all of it is idempotent."""

    async def tick(self, pool: str) -> TickReport:
        """Promote due tasks, reap lost leases, expire, name what retention has ended. Advances the lease clock."""

    async def confirm_deleted(self, pool: str, prefixes: Sequence[str]) -> None:
        """Confirm that the files below these prefixes are gone."""

    async def forget(self, tasks: Sequence[TaskId]) -> int:
        """As in :class:`TaskStore`."""
