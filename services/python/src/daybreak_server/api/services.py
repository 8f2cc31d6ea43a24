"""The adapters that the app uses. ``wiring`` creates them."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.batching_settings import BatchingStore
from daybreak_server.ports.blobs import Blobs
from daybreak_server.ports.demand import DemandStore
from daybreak_server.ports.events import EventLog
from daybreak_server.ports.housekeeping import Housekeeper
from daybreak_server.ports.measurements import Measurements
from daybreak_server.ports.registry import Registry
from daybreak_server.ports.sessions import SessionEvents, SessionStore
from daybreak_server.ports.tasks import TaskStore
from daybreak_server.ports.tracing import NO_TRACING, Tracing
from daybreak_server.ports.upstreams import Upstreams
from daybreak_server.settings.tree import Settings


def wall_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


async def _nothing_to_close() -> None:
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """The adapters that the app calls. ``close`` is awaited when the app's lifespan ends."""

    settings: Settings
    store: TaskStore
    events: EventLog
    housekeeper: Housekeeper
    measurements: Measurements
    blobs: Blobs
    demand: DemandStore
    registry: Registry
    batching: BatchingStore
    upstreams: Upstreams
    sessions: SessionStore
    session_events: SessionEvents
    metrics: GatewayMetrics = field(default_factory=GatewayMetrics)
    tracing: Tracing = NO_TRACING
    close: Callable[[], Awaitable[None]] = _nothing_to_close
    now_ms: Callable[[], int] = wall_ms
