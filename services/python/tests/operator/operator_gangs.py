"""The gangs and applications that run on the hosts of a simulated world."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.domain.pools import GroupState


class BusyGroupLostError(AssertionError):
    """A busy group was removed without a drain mark, or less than 30 s after it was marked."""


@dataclass(slots=True)
class Gang:
    """A Serve gang, and the group that it becomes."""

    id: str
    cluster: str
    hosts: tuple[str, ...]
    state: GroupState | None = None
    """``None``: not registered yet."""
    since: float = 0.0
    task: str | None = None
    hung: bool = False
    dead_at: float | None = None
    """When its ranks died. The store learns of their death only when the lease ends."""


@dataclass(slots=True)
class App:
    """The pool's Serve application on one head."""

    attempt: int
    target: int
    status: str = "DEPLOYING"
