"""The work queue as the leader of a group uses it. Calls about a claimed task are fenced."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    Lease,
    Outcome,
    Settled,
)


class WorkQueue(Protocol):
    """The queue of one pool. All calls block; they may come from any thread.

    Each method except ``close`` may raise :class:`~daybreak_server.ports.store_errors.StoreError`.
    """

    def claim(self, group: GroupRecord, *, wait_s: float) -> Claim | None:
        """Claim the next task in fair order. Returns ``None`` after ``wait_s``, or if the group drains."""

    def renew(self, lease: Lease) -> Control:
        """Extend the lease. Returns the control bits: ``STALE`` if this attempt no longer holds the task."""

    def report(
        self,
        lease: Lease,
        events: Sequence[EventDraft],
        *,
        checkpoint: CheckpointRef | None = None,
        fields: Mapping[str, str | int | float] | None = None,
    ) -> Control:
        """Append events, update the record and the checkpoint pointer, and extend the lease.

        ``fields`` may set ``phase``, ``fraction``, ``step``, ``steps``, ``eta_s`` and ``resumed_from_step``. With a
        stale lease nothing is written.

        :raises ValueError: for another field, or data that JSON cannot hold (NaN).
        """

    def preview(self, lease: Lease, image: bytes, *, content_type: str, ttl_s: float) -> Control:
        """Replace the task's preview (≤ 32 KiB). With a stale lease nothing is written.

        :raises ValueError: if ``image`` is larger than 32 KiB.
        """

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        """End the attempt. If ``claim_next`` is a group, the same call claims the next task for this group."""

    def register(self, record: GroupRecord, *, ttl_s: float) -> GroupRecord:
        """Register a group or refresh its registration. The returned record has the group's drain mark."""

    def batching(self) -> Mapping[str, Any]:
        """An administrator's changes to the pool's settings ``batching`` and ``sessions``."""

    def deregister(self, record: GroupRecord) -> None:
        """Remove a group. Tasks that it still holds are released."""

    def deregister_dead(self, record: GroupRecord, *, worked_on: Sequence[SessionId] | None = None) -> None:
        """Remove a group that has died, and count it as lost. Tasks that it still holds are released.

        ``worked_on``: the streaming sessions that the group worked on last, one of which may have caused its death;
        ``None`` if they are unknown.
        """

    def report_failure(self, cause: Cause, *, rank: int = 0) -> None:
        """Report why a rank ended. The pool shows this cause until a group is ready, for ten minutes at most."""

    def close(self) -> None:
        """Close the connections. A waiting claim ends soon."""
