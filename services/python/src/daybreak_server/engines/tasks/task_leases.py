"""The part of the lease renewer that a leader's task loop uses: the leases of its tasks, and the group's record."""

from __future__ import annotations

from typing import Any, Protocol

from daybreak_server.domain.ids import TaskId
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.engines.common.lease_renewer import HeldLease


class TaskLeases(Protocol):
    """Implemented by :class:`~daybreak_server.engines.common.lease_renewer.LeaseRenewer`."""

    @property
    def record(self) -> GroupRecord:
        """The group's record."""

    @property
    def drain(self) -> bool:
        """Whether the store has marked the group to drain."""

    def update(self, *, now: bool = True, **changes: Any) -> GroupRecord:
        """Change the record. With ``now``, send the new record to the store at once."""

    def hold(self, held: HeldLease) -> None:
        """Renew this lease too from now on."""

    def drop(self, task: TaskId) -> None:
        """Stop renewing the lease of this task."""
