"""Pools. A pool is a queue and the groups of ranks that serve it.

A pool that has no group because none is wanted is *at zero*; its wake phase is ``zero``. As soon as a group is
wanted, the pool goes through the other phases, in the order of :data:`WAKE_PHASES`, until the group is ``ready``.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from daybreak.wire.base import ResponseModel, Time

WAKE_PHASES = ("detect", "pods", "image", "ray", "process_group", "model", "warm_up", "ready")
"""The phases of a wake, in order. A pool at zero is in the phase ``zero`` instead: nothing runs and nothing waits."""
NOT_WAKING = ("zero", "ready")
"""The phases of a pool that is not waking."""
GROUP_STATES = ("starting", "loading", "idle", "busy", "draining", "lost")
"""The states of a group. A ready group is idle if it has no task, request or session."""


class GroupLoad(ResponseModel):
    """The load of a group that serves requests."""

    in_flight: int = 0
    waiting: int = 0
    sessions: int = 0
    free_memory_bytes: int | None = None


class PoolGroup(ResponseModel):
    """A group of ranks.

    ``tasks`` (the tasks that the group runs), ``hosts``, ``pids`` and ``endpoint`` are present only for administrators.
    ``phase`` is the group's own wake phase, which began at ``since``. ``phase`` is absent once the group is ready.
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
    """The pool's current wake phase, and how many seconds each phase of the last wake took (``last``)."""

    phase: str
    since: Time | None = None
    last: dict[str, float] = Field(default_factory=dict)
    eta_s: float | None = None


class PoolCondition(ResponseModel):
    """What the operator or ``daybreakd up`` reports about the pool; without a report, the last failure of a rank.

    ``phase`` is absent without a report. In Kubernetes, it is the phase of the ``GeneratorPool``.
    ``reason`` (for programs) and ``message`` (for people) are present while the pool has a problem.
    """

    phase: str | None = None
    reason: str | None = None
    message: str | None = None


class PoolSessions(ResponseModel):
    """The streaming sessions of a pool. ``open`` counts the open sessions, and ``waiting`` those that no group has.

    ``lag_ms`` is how far behind the sessions of the slowest group are (the 95th percentile). ``latency_multiplier`` is
    the number of blocks in a turn of the group with the longest turns; a group makes its turns longer while it lags.
    ``full``: every group lags too far behind, so new sessions are refused.
    """

    open: int
    waiting: int
    lag_ms: float
    latency_multiplier: int
    full: bool


class Pool(ResponseModel):
    """A pool as ``GET /v1/pools/{name}`` returns it.

    The groups of a pool of kind ``jobs`` run tasks. The groups of a pool of kind ``online`` answer requests, and the
    pool has four more fields:

    - ``requests``: how many requests wait or are being answered
    - ``requests_waiting``: how many of these requests no group has
    - ``groups_needed``: how many groups the requests need
    - ``routing``: how a group is chosen for a request

    The groups of a pool of kind ``sessions`` serve streaming sessions, and the pool has ``sessions`` and
    ``groups_needed``.
    """

    name: str
    object: Literal["pool"] = "pool"
    workload: str
    kind: str = "jobs"
    queued: int = 0
    delayed: int = 0
    running: int = 0
    oldest_wait_s: float | None = None
    requests: int | None = None
    requests_waiting: int | None = None
    groups_needed: int | None = None
    routing: str | None = None
    sessions: PoolSessions | None = None
    groups: list[PoolGroup] = Field(default_factory=list)
    groups_wanted: int = 0
    groups_max: int = 0
    wake: WakeHistory
    condition: PoolCondition | None = None
    input_schema: dict[str, Any] = Field(default_factory=dict)


class PoolList(ResponseModel):
    """The response of ``GET /v1/pools``."""

    object: Literal["list"] = "list"
    data: list[Pool]
