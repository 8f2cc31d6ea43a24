"""The work queue as the leader of a group sees it: blocking calls, fenced by the lease."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupRecord
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
