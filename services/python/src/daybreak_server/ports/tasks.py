"""The task store as the API sees it. Its methods submit, read, cancel and delete tasks, whose records are durable.

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
    """The result of a submit: the stored task, and whether an earlier submit with the same key created it."""

    record: TaskRecord
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of tasks, and the cursor of the next page (``None`` at the end)."""

    records: tuple[TaskRecord, ...]
    next: TaskId | None = None


class TaskStore(Protocol):
    """The store as the API uses it. All methods raise :class:`StoreUnavailableError` if the store is unreachable."""

    async def submit(self, tasks: Sequence[NewTask]) -> list[Submitted | StoreError]:
        """Store tasks in order, each atomically: its record, its queue entry and its event, or nothing.

        Returns, for each task, the stored task or the error that says why it was not accepted.
        """

    async def submitted(self, pool: str, tenant: str, *, key: str, body_hash: str) -> Submitted | None:
        """What an earlier submit with this idempotency key created, or ``None``.

        :raises IdempotencyMismatchError: if the earlier submit had another body.
        """

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
        """A page of a tenant's tasks in a pool, sorted by id.

        With ``states``, a page may have fewer tasks than ``limit`` although more pages follow.
        """

    async def cancel(self, task: TaskId, *, reason: str = "requested") -> TaskRecord | None:
        """Cancel a task: a waiting one at once, a running one after its step. An ended task does not change."""

    async def preview(self, task: TaskId) -> tuple[bytes, str] | None:
        """The latest preview and its content type, or ``None``."""

    async def delete(self, tasks: Sequence[TaskId]) -> int:
        """Delete ended tasks and their events. The caller deletes their files first. Returns how many were deleted.

        :raises ConflictError: when a task has not ended.
        """

    async def pool(self, name: str) -> PoolView:
        """The pool now: how many tasks it has in each state, its groups, and its wake."""
