"""The loops of the leader and of the followers. Each kind of group has its own.

All other parts of a rank's life are the same for all kinds: see :mod:`~daybreak_server.engines.ranks.rank_lifecycle`.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any, Protocol

from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import LeaseRenewer
from daybreak_server.engines.ranks.control_group import ControlGroup, LeaderConnection
from daybreak_server.engines.ranks.rank_deps import LeaderDeps
from daybreak_server.workloads.base import Workload, WorkloadSpec


class Leader(Protocol):
    """The loop of a leader."""

    @property
    def broken(self) -> Failed | None:
        """Why the group is broken, or ``None``."""

    @property
    def lease_age_s(self) -> float | None:
        """Seconds since the lease of the running task was renewed; ``None`` if there is no such task."""

    def run(self) -> bool:
        """Run until the group must leave or is broken. Returns ``True`` if it must leave, ``False`` if it is broken."""

    def break_group(self, failed: Failed) -> None:
        """Mark the group broken, and end its work. Any thread may call this; only the first call has an
        effect."""

    def release_task(self) -> None:
        """The time limit for leaving has passed: release the work that still runs. Any thread may call this."""


class Follower(Protocol):
    """The loop of a follower."""

    def run(self) -> None:
        """Work until the leader ends the group.

        :raises GroupBrokenError: if the connection to the leader is lost, or the ranks disagree.
        """


class MakeLeader(Protocol):
    """Makes the loop of a leader that has loaded its model. Right after this call, the group is registered as idle."""

    def __call__(
        self,
        spec: WorkloadSpec[Any],
        /,
        *,
        deps: LeaderDeps,
        control_group: ControlGroup,
        lease_renewer: LeaseRenewer,
        stopping: threading.Event,
    ) -> Leader:
        """Make the leader's loop."""


class MakeFollower(Protocol):
    """Makes the loop of a follower that has loaded its model."""

    def __call__(
        self,
        spec: WorkloadSpec[Any],
        /,
        *,
        config: GroupConfig,
        workload: Workload[Any],
        leader: LeaderConnection,
        heartbeat: Heartbeat,
    ) -> Follower:
        """Make a follower's loop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupLoops:
    """The loops of one kind of group."""

    leader: MakeLeader
    follower: MakeFollower
