"""Pools and groups as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.ids import GroupId, TaskId
from daybreak_server.domain.serving import Load


class GroupState(StrEnum):
    """States of a group."""

    STARTING = "starting"
    LOADING = "loading"
    IDLE = "idle"
    BUSY = "busy"
    DRAINING = "draining"
    LOST = "lost"

    @property
    def ready(self) -> bool:
        """Whether the group has formed: it can take tasks, works on one, or is about to go."""
        return self in (GroupState.IDLE, GroupState.BUSY, GroupState.DRAINING)

    @property
    def accepts_tasks(self) -> bool:
        """Whether the group takes a task now or once it is done with its own. A draining group takes none."""
        return self.ready and self is not GroupState.DRAINING


class WakePhase(StrEnum):
    """Where a pool is on its way from zero to a ready group: the phases in order, behind ``ZERO``."""

    ZERO = "zero"
    """Nothing runs and nothing waits: the pool does not wake."""
    DETECT = "detect"
    """A task waits; no group has been asked for yet."""
    PODS = "pods"
    IMAGE = "image"
    RAY = "ray"
    PROCESS_GROUP = "process_group"
    MODEL = "model"
    WARM_UP = "warm_up"
    READY = "ready"


WAKE_PHASES = tuple(phase for phase in WakePhase if phase is not WakePhase.ZERO)
"""A whole wake in order, ending with ``READY``."""
RESTING_PHASES = (WakePhase.ZERO, WakePhase.READY)
"""No wake is under way."""
GROUP_PHASES = (WakePhase.PROCESS_GROUP, WakePhase.MODEL, WakePhase.WARM_UP)
"""Phases that a group measures itself, more exactly than anybody can from outside."""
CLUSTER_PHASES = WAKE_PHASES[: WAKE_PHASES.index(GROUP_PHASES[0])]
"""Phases before there is a group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """A group as it registers itself. ``wake`` maps each finished wake phase to its seconds."""

    id: GroupId
    state: GroupState
    ranks: int = 1
    phase: str = WakePhase.READY
    since_ms: int = 0
    tasks: tuple[TaskId, ...] = ()
    """The tasks that it holds, in the order of their claims; a group of ``jobs`` holds one at most."""
    hosts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    loads: int = 0
    """How often a model was loaded in this group's life: 1 while it stays resident."""
    plan: str = ""
    """The parallel plan in words."""
    detail: str = ""
    """How far its phase is, in words; empty where there is nothing to say."""
    wake: Mapping[str, float] = field(default_factory=dict)
    drain: bool = False
    endpoint: str | None = None
    """Where it answers requests, for a group that serves them: a URL inside the cluster."""
    models: tuple[str, ...] = ()
    """Names of the models that it serves."""
    capacity: int | None = None
    """How many tasks, requests or sessions it takes at once."""
    load: Load | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """What the operator of a Kubernetes says of a pool: what no group can know, as it may not be there yet."""

    phase: str
    """Of the GeneratorPool: ``Ready``, ``Waking``, ``Blocked``, …"""
    reason: str = ""
    """What is wrong, in one word; empty while nothing is."""
    message: str = ""
    """The same as a sentence: the cause, and what to do."""
    wanted: int = 0
    """Groups wanted."""
    wake_phase: str = WakePhase.ZERO
    wake_since_ms: int | None = None
    wake_began_ms: int | None = None
    """When a group was first wanted."""
    wake_last: Mapping[str, float] = field(default_factory=dict)
    """Seconds of each phase of the last whole wake, with their ``total``; empty while one is under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolView:
    """A pool's numbers at one moment."""

    name: str
    queued: int = 0
    delayed: int = 0
    running: int = 0
    live: int = 0
    oldest_wait_s: float | None = None
    groups: tuple[GroupRecord, ...] = ()
    seconds_per_cost: float | None = None
    """Run time per unit of cost, from the pool's own history (exponentially weighted)."""
    wake_last: Mapping[str, float] = field(default_factory=dict)
    wake_phase: str = WakePhase.ZERO
    wake_since_ms: int | None = None
    report: PoolReport | None = None
    """Where an operator keeps the groups."""
    failure: Cause | None = None
    """Why a rank ended last, until a group is ready."""
    closed: tuple[str, ...] = ()
    """Hosts on which a group is marked to drain when it registers."""
    used_gpu_seconds: float = 0.0
    wasted_gpu_seconds: float = 0.0
    ended: Mapping[str, int] = field(default_factory=dict)
    """Tasks ended so far by terminal state; only rises."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What one tick did, and what it asks its caller to do: delete files, then confirm."""

    promoted: int = 0
    reaped: int = 0
    expired: int = 0
    retention_due: tuple[TaskId, ...] = ()
    """Ended tasks past their retention: delete all their files, then ``forget`` them."""
    garbage: tuple[str, ...] = ()
    """Prefixes of files that lost attempts left: delete them, then ``confirm_deleted`` them."""
    more: bool = False
    """Whether a bound was hit and another tick should follow at once."""
