"""Pools and groups as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import GroupId, TaskId
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.domain.serving_load import Load


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
        """Whether the group has formed: it is idle, busy or draining."""
        return self in (GroupState.IDLE, GroupState.BUSY, GroupState.DRAINING)

    @property
    def accepts_tasks(self) -> bool:
        """Whether a group in this state takes tasks, now or after its current one. A draining group takes none."""
        return self.ready and self is not GroupState.DRAINING


class WakePhase(StrEnum):
    """The phases of a pool on its way from zero to a ready group, in order."""

    ZERO = "zero"
    """Nothing runs and nothing waits. No wake is in progress."""
    DETECT = "detect"
    """A task, a request or a session waits, but no group has been requested yet."""
    PODS = "pods"
    IMAGE = "image"
    RAY = "ray"
    PROCESS_GROUP = "process_group"
    MODEL = "model"
    WARM_UP = "warm_up"
    READY = "ready"


WAKE_PHASES = tuple(phase for phase in WakePhase if phase is not WakePhase.ZERO)
"""All phases of a wake in order, ending with ``READY``."""
NOT_WAKING = (WakePhase.ZERO, WakePhase.READY)
"""The phases in which no wake is in progress."""
GROUP_PHASES = (WakePhase.PROCESS_GROUP, WakePhase.MODEL, WakePhase.WARM_UP)
"""Phases that a group measures itself. The group's times are more exact than times measured from outside."""
CLUSTER_PHASES = WAKE_PHASES[: WAKE_PHASES.index(GROUP_PHASES[0])]
"""Phases before a group exists."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRecord:
    """What a group registers about itself. ``wake`` maps each finished wake phase to its seconds."""

    id: GroupId
    state: GroupState
    ranks: int = 1
    phase: str = WakePhase.READY
    since_ms: int = 0
    tasks: tuple[TaskId, ...] = ()
    """The tasks that it holds, in the order of their claims. A group of kind ``jobs`` holds at most one."""
    hosts: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    loads: int = 0
    """How often this group has loaded a model: 1 as long as the model stays resident."""
    plan: str = ""
    """A description of the parallel plan."""
    detail: str = ""
    """A description of the progress within the phase; may be empty."""
    wake: Mapping[str, float] = field(default_factory=dict)
    drain: bool = False
    endpoint: str | None = None
    """The URL inside the cluster at which a serving group answers requests."""
    models: tuple[str, ...] = ()
    """Names of the models that it serves."""
    capacity: int | None = None
    """How many tasks, requests or sessions it can hold at once."""
    load: Load | None = None

    @property
    def accepts_tasks(self) -> bool:
        """Whether the group takes tasks, now or after its current one. A group that is marked to drain takes none."""
        return self.state.accepts_tasks and not self.drain


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolReport:
    """The report on a pool by the Kubernetes operator or by ``daybreakd up``. It says what groups cannot say, because
    there may be no group yet."""

    phase: str
    """The phase of the GeneratorPool: ``Ready``, ``Waking``, ``Blocked``, …"""
    reason: str = ""
    """The code of the current problem; empty if there is none."""
    message: str = ""
    """The problem in a sentence: its cause, and what to do."""
    wanted: int = 0
    """The number of groups that should run."""
    wake_phase: str = WakePhase.ZERO
    wake_since_ms: int | None = None
    wake_began_ms: int | None = None
    """When a group was first wanted in the current wake."""
    wake_last: Mapping[str, float] = field(default_factory=dict)
    """The seconds of each phase of the last complete wake, and their ``total``; empty while a wake is in progress."""
    wake_passed: Mapping[str, float] = field(default_factory=dict)
    """The seconds of each completed phase of the current wake; empty while no wake is in progress."""
    target_load: float | None = None
    """The requests or sessions that one group should have, as the GeneratorPool says; ``None`` if it says nothing."""


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
    """Present if an operator manages the groups, and under ``daybreakd up`` while no group is ready."""
    failure: Cause | None = None
    """The cause of the most recent end of a rank; cleared when a group is ready."""
    cordoned: tuple[str, ...] = ()
    """Hosts that are about to be removed. A group that registers on such a host is marked to drain."""
    routing: RoutingPolicy | None = None
    """The routing policy that an administrator has set while the pool runs; ``None`` if there is none."""
    batching: Mapping[str, Any] = field(default_factory=dict)
    """An administrator's changes to the setting ``batching`` while the pool runs."""
    demand: int = 0
    """Kind ``online``: the requests that gateways hold or have sent to groups. Kind ``sessions``: the open sessions."""
    wanted: int = 0
    """The number of groups that ``demand`` needs, by the pool's target load."""
    wanted_for_s: float | None = None
    """How long the demand has needed at least one group."""

    @property
    def has_work(self) -> bool:
        """Whether the pool needs a group: there are live tasks, requests or open sessions."""
        return self.live > 0 or self.wanted > 0

    @property
    def start_failure(self) -> Cause | None:
        """Why no group can start; ``None`` if a group may start.

        A group that cannot load its model reports why, leaves, and tries again after a growing delay. Between two
        attempts the pool has no group, and the reason of its last failure is ``MODEL_MISSING``. While a group starts,
        work waits for it. If there is a report on the pool, work is never refused for this reason: an operator starts
        groups only for work that waits, so otherwise it would never try a model that has been corrected.
        """
        if self.failure is None or self.failure.reason != Reason.MODEL_MISSING or self.report is not None:
            return None
        return None if any(group.state is not GroupState.LOST for group in self.groups) else self.failure


@dataclass(frozen=True, slots=True, kw_only=True)
class TickReport:
    """What one tick did, and which files its caller must now delete."""

    promoted: int = 0
    reaped: int = 0
    expired: int = 0
    retention_due: tuple[TaskId, ...] = ()
    """Ended tasks past their retention: delete all their files, then call ``delete``."""
    garbage: tuple[str, ...] = ()
    """Prefixes of files that are no longer needed, such as those of lost attempts: delete them, then call
    ``confirm_deleted``."""
    more: bool = False
    """Whether the tick reached its limit, so that another tick should follow at once."""
