"""What a rank gets from the process that runs it, and what a leader's loop gets from its rank."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.domain.causes import Cause
from daybreak_server.engines.common.config import GroupConfig
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.progress import PhaseEta
from daybreak_server.engines.common.rank_metrics import RankMetrics
from daybreak_server.engines.common.watchdog import Watchdog
from daybreak_server.engines.ranks.rendezvous import RendezvousStore
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.queue import WorkQueue
from daybreak_server.ports.sessions import SessionWork
from daybreak_server.ports.tracing import NO_TRACING, Tracing
from daybreak_server.workloads.base import Workload

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RankDeps:
    """What a rank needs from outside: the queue, the stores, the workload and the means to report."""

    queue: Callable[[], WorkQueue]
    """Opens the queue. Called on the leader only. Opening must not fail while Redis is down."""
    blobs: Callable[[], Blobs]
    """Opens the blob store. Called on the leader only."""
    workload: Callable[[], Workload[Any]]
    """Imports the workload's modules, and makes the workload's object."""
    on_broken: Callable[[Cause], None]
    """Called once when this rank cannot continue. If the rank has its own process, this function ends the process."""
    rendezvous: RendezvousStore | None = None
    """Where the ranks find each other. A group of one rank needs no rendezvous."""
    host: str = "127.0.0.1"
    """An address of this node that other ranks can reach."""
    local_rank: int = 0
    """The index of the rank's device among the devices that this process sees."""
    label: str = ""
    """The name under which people know this node, such as a pod's name. If it is empty, ``host`` is used."""
    watchdog: Callable[[], Watchdog] | None = None
    """Makes the leader's watchdog. Set only if the process has no other rank, because the watchdog may
    kill the process."""
    places: Mapping[str, Callable[[], Blobs]] = field(default_factory=dict)
    """The places from which tasks of an ``online`` pool may read files: name of the place → function that opens it."""
    fetch_model: Callable[[Callable[[int, int], None]], str] | None = None
    """Downloads the model and returns its folder. Its argument is a callback that gets the progress: the
    number of bytes that are present, and the total number.

    ``None``: no download is needed.
    """
    on_model_unavailable: Callable[[Cause], None] = _log.warning
    """Called with the reason each time that the download fails. The download is then retried."""
    session_work: Callable[[], SessionWork] | None = None
    """Opens the sessions of a pool of kind ``sessions``. Called on the leader only."""
    metrics: RankMetrics = field(default_factory=RankMetrics)
    tracing: Tracing = NO_TRACING
    wake: Mapping[str, float] = field(default_factory=dict)
    """The durations, in seconds, of the wake phases that ended before this rank started."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderDeps:
    """The dependencies of a leader."""

    config: GroupConfig
    queue: WorkQueue
    blobs: Blobs
    workload: Workload[Any]
    heartbeat: Heartbeat
    phases: PhaseEta
    must_leave: Callable[[], bool]
    """Whether this rank was asked to leave, because its process ends or its node drains. The task is then released."""
    metrics: RankMetrics = field(default_factory=RankMetrics)
    tracing: Tracing = NO_TRACING
    places: Mapping[str, Callable[[], Blobs]] = field(default_factory=dict)
    """The stores from which tasks of an ``online`` pool may read files: their names, and functions that open them."""
