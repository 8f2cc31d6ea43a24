"""The task store as the API sees it: durable records, submitted, read and cancelled.

Every change of state is atomic: it happens completely or not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import (
    NewTask,
    State,
    TaskRecord,
)
from daybreak_server.ports.store_errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Submitted:
    """The answer to a submit: the stored task, and whether an earlier submit with the same key made it."""

    record: TaskRecord
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of tasks, and the cursor of the next one (``None`` at the end)."""

    records: tuple[TaskRecord, ...]
    next: TaskId | None = None


class TaskStore(Protocol):
    """What the API asks. All methods raise :class:`StoreUnavailableError` when the store cannot be reached."""

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        """Accept tasks of one pool, each atomically: record, queue entry and event, or nothing. In order."""

    async def get(self, task: TaskId) -> TaskRecord | None:
        """The task, or ``None``."""

    async def list(
        self,
        pool: str,
        tenant: str,
        *,
        states: frozenset[State] | None = None,
        after: TaskId | None = None,
        limit: int = 20,
        newest_first: bool = True,
    ) -> Page:
        """A page of a tenant's tasks in a pool, by id. A filtered page may be short and still have a ``next``."""

    async def cancel(self, task: TaskId, *, reason: str = "requested") -> TaskRecord | None:
        """Cancel: at once where it waits, at its next step where it runs. Nothing changes once it has ended."""

    async def preview(self, task: TaskId) -> tuple[bytes, str] | None:
        """The latest preview and its content type, or ``None``."""

    async def forget(self, tasks: Sequence[TaskId]) -> int:
        """Remove ended tasks with their events (their files are already deleted). Raises ConflictError if live."""

    async def pool(self, name: str) -> PoolView:
        """The pool's numbers and groups."""
