"""What runs on a world's hosts."""

from __future__ import annotations

from dataclasses import dataclass

from daybreak_server.domain.pools import GroupState


class BusyGroupLostError(AssertionError):
    """Somebody took a group away that worked and had not been told in time."""


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
    """Its ranks are gone; the store does not know yet."""


@dataclass(slots=True)
class App:
    """The pool's Serve application on one head."""

    attempt: int
    target: int
    status: str = "DEPLOYING"
