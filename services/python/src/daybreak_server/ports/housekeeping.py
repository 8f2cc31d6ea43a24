"""Periodic work on the queue: ticks, and the deletion of files at the end of their retention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import TickReport


class Housekeeper(Protocol):
    """Does the periodic work of a pool. All methods are idempotent.

    Each method may raise :class:`~daybreak_server.ports.store_errors.StoreUnavailableError`.
    """

    async def tick(self, pool: str) -> TickReport:
        """Do what depends on time: queue due tasks, expire overdue tasks, and check leases, groups and sessions.

        Every gateway calls this each second. The report names the files that are now due for deletion.
        """

    async def confirm_deleted(self, pool: str, prefixes: Sequence[str]) -> None:
        """Confirm that the files below these prefixes are deleted."""

    async def delete(self, tasks: Sequence[TaskId]) -> int:
        """Delete ended tasks; see ``TaskStore.delete``."""
