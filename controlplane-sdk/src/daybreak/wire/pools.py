"""Pools: one queue and the groups that serve it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from daybreak.wire.base import Answer, Time

WAKE_PHASES = ("detect", "pods", "image", "ray", "process_group", "model", "warm_up", "ready")
"""In order; ``zero`` when nothing runs and nothing waits."""
RESTING_PHASES = ("zero", "ready")
"""No wake is under way."""
GROUP_STATES = ("starting", "loading", "idle", "busy", "draining", "lost")


class GroupLoad(Answer):
    """How busy a group is that serves requests."""

    in_flight: int = 0
    waiting: int = 0
    sessions: int = 0
    free_memory_bytes: int | None = None


class PoolGroup(Answer):
    """A group of ranks; ``tasks`` (which it holds), ``hosts``, ``pids`` and ``endpoint`` are shown to admin keys only,
    and on an open local server.

    ``phase`` is its own phase of the wake (``since`` counts from it), and absent once it is ready.
    """

    id: str
    state: str
    phase: str | None = None
    ranks: int
    tasks: list[str] | None = None
    since: Time | None = None
    hosts: list[str] | None = None
    pids: list[int] | None = None
    loads: int | None = None
    plan: str | None = None
    detail: str | None = None
    endpoint: str | None = None
    models: list[str] | None = None
    capacity: int | None = None
    load: GroupLoad | None = None


class WakeHistory(Answer):
    """The pool's wake phase now, and the seconds that each phase of the latest wake took."""

    phase: str
    since: Time | None = None
    last: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None


class PoolCondition(Answer):
    """How the pool's groups fare: ``phase`` as Kubernetes shows it; ``reason`` (for programs) and ``message``
    (for people) are there while something is wrong."""

    phase: str | None = None
    reason: str | None = None
    message: str | None = None


class Pool(Answer):
    """A pool as ``GET /v1/pools/{name}`` shows it."""

    name: str
    object: Literal["pool"] = "pool"
    workload: str
    queued: int = 0
    delayed: int = 0
    running: int = 0
    oldest_wait_s: float | None = None
    groups: list[PoolGroup] = Field(default_factory=list)
    groups_wanted: int = 0
    groups_max: int = 0
    wake: WakeHistory
    condition: PoolCondition | None = None
    input_schema: dict[str, Any] = Field(default_factory=dict)


class PoolList(Answer):
    """All pools."""

    object: Literal["list"] = "list"
    data: list[Pool]
