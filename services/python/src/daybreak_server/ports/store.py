"""The store of tasks: durable records, the fair queue, leases, event streams.

Three narrow faces of one store, by who calls: the API (``TaskStore``), whoever follows (``EventLog``), and the
leader of a group (``WorkQueue``). Every change of state is atomic: it is done whole or not at all.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import GroupRecord, PoolView, TickReport
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    EventRecord,
    Lease,
    NewTask,
    Outcome,
    Settled,
    State,
    TaskRecord,
)


class StoreError(Exception):
    """Base of what a store raises.

    ``StoreError``
      ├── ``StoreUnavailableError``    cannot be reached or timed out: temporary, try again
      │     └── ``StoreRefusedError``  refuses our user or password: until somebody corrects them
      ├── ``StoreFullError``           has no memory for new tasks: temporary, running tasks go on
      ├── ``QueueFullError``           the pool's own bound on waiting tasks is reached: temporary
      ├── ``IdempotencyMismatchError`` the key was used with another body: permanent
      ├── ``EventsTrimmedError``       a reader fell so far behind that events are gone: begin at the tail
      └── ``ConflictError``            the task's state does not allow this: permanent
    """


class StoreUnavailableError(StoreError):
    """The store cannot be reached or did not answer in time."""


class StoreRefusedError(StoreUnavailableError):
    """The store refuses the user or the password that we have."""


class StoreFullError(StoreError):
    """The store has no memory left for new tasks."""


class QueueFullError(StoreError):
    """The pool has as many waiting tasks as it may."""


class IdempotencyMismatchError(StoreError):
    """The tenant has used the idempotency key with another body, in this pool, for a task that is still kept."""


class EventsTrimmedError(StoreError):
    """Events between what a reader has and what there is have been dropped; it begins again at the tail."""


class ConflictError(StoreError):
    """The task's state does not allow this."""


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


class Housekeeper(Protocol):
    """What keeps the queue moving. Every gateway calls it each second; all of it is idempotent."""

    async def tick(self, pool: str) -> TickReport:
        """Promote due tasks, reap lost leases, expire, name what retention has ended. Advances the lease clock."""

    async def collected(self, pool: str, prefixes: Sequence[str]) -> None:
        """Confirm that the files below these prefixes are gone."""

    async def forget(self, tasks: Sequence[TaskId]) -> int:
        """As in :class:`TaskStore`."""


class EventLog(Protocol):
    """The event streams."""

    async def read(self, task: TaskId, *, after: str | None = None, limit: int = 1000) -> EventPage:
        """The task's own events behind ``after`` (exclusive; ``None`` = from the beginning), in order."""

    async def tail(self, pool: str) -> str:
        """The id of the pool's newest event (``0-0`` when there is none): where a live reader begins."""

    def follow(self, pool: str, *, after: str) -> AsyncIterator[Sequence[EventRecord]]:
        """All events of the pool behind ``after`` as they come, in order, by a blocking read.

        Outages are ridden out. :raises EventsTrimmedError: when events in between have been dropped."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EventPage:
    """Events of one task. ``trimmed``: history between ``after`` and the first of them has been dropped."""

    events: tuple[EventRecord, ...]
    trimmed: bool = False


class WorkQueue(Protocol):
    """What the leader of a group asks; blocking calls, from threads."""

    def claim(self, group: GroupRecord, *, wait_s: float) -> Claim | None:
        """The next task in fair order, or ``None`` after ``wait_s`` without one, or while the group drains."""

    def renew(self, lease: Lease) -> Control:
        """Extend the lease. ``STALE`` when it is not ours any more."""

    def report(
        self,
        lease: Lease,
        events: Sequence[EventDraft],
        *,
        checkpoint: CheckpointRef | None = None,
        fields: Mapping[str, str | int | float] | None = None,
    ) -> Control:
        """Append events, update the record (``phase``, ``fraction``, ``step``, ``steps``, ``eta_s``,
        ``resumed_from_step``) and the checkpoint pointer, and extend the lease. Fenced: STALE writes nothing."""

    def preview(self, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Control:
        """Overwrite the task's preview (≤ 32 KiB). Fenced."""

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """End the attempt, and claim the next task for the same group in the same call."""

    def group(self, record: GroupRecord, *, ttl_s: float) -> GroupRecord:
        """Register or refresh a group; the answer carries ``drain``."""

    def leave(self, record: GroupRecord) -> None:
        """The group is gone; whatever it held is handed back."""

    def failed(self, cause: Cause, *, rank: int = 0) -> None:
        """A rank ends because of this: shown with the pool until a group is ready."""

    def close(self) -> None:
        """Let the connections go; a waiting claim ends soon."""
