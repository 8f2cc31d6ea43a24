"""Pools: a queue and the groups of ranks that serve it."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from daybreak.wire.base import ResponseModel, Time

WAKE_PHASES = ("detect", "pods", "image", "ray", "process_group", "model", "warm_up", "ready")
"""The phases of a wake, in order. A pool in which nothing runs and nothing waits is in ``zero`` instead."""
RESTING_PHASES = ("zero", "ready")
"""Phases in which the pool is not waking."""
GROUP_STATES = ("starting", "loading", "idle", "busy", "draining", "lost")


class GroupLoad(ResponseModel):
    """The load of a group that serves requests."""

    in_flight: int = 0
    waiting: int = 0
    sessions: int = 0
    free_memory_bytes: int | None = None


class PoolGroup(ResponseModel):
    """A group of ranks.

    ``tasks`` (those that it holds), ``hosts``, ``pids`` and ``endpoint`` are present only for admin keys and on an open
    local server. ``phase`` is the group's own wake phase, which began at ``since``; it is absent once the group is
    ready.
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


class WakeHistory(ResponseModel):
    """The pool's current wake phase, and the seconds that each phase of the last wake took."""

    phase: str
    since: Time | None = None
    last: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None


class PoolCondition(ResponseModel):
    """The condition of the pool's groups. ``phase`` is that of the Kubernetes resource.

    ``reason`` (for programs) and ``message`` (for people) are present while something is wrong.
    """

    phase: str | None = None
    reason: str | None = None
    message: str | None = None


class Pool(ResponseModel):
    """A pool as ``GET /v1/pools/{name}`` returns it."""

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


class PoolList(ResponseModel):
    """All pools."""

    object: Literal["list"] = "list"
    data: list[Pool]
