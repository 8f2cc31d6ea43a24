"""The metrics of pools that a gateway exports, from what it read of Redis last."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.observability.pool_metrics import STALE_S, PoolMetrics
from daybreak_server.ports.measurements import ServerStats

SERVER = ServerStats(
    memory_bytes=1,
    memory_limit_bytes=2,
    cpu_s=None,
    clients=1,
    aof_enabled=True,
    aof_healthy=True,
    aof_bytes=1,
)


class Clock:
    """Seconds that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def read(metrics: PoolMetrics, name: str, **labels: str) -> float | None:
    """The value of a series, as a scrape sees it."""
    registry = CollectorRegistry()
    registry.register(metrics)
    return registry.get_sample_value(name, labels)


def group(state: GroupState, *, ranks: int, drain: bool = False) -> GroupRecord:
    return GroupRecord(id=GroupId(f"g-{state}-{drain}"), state=state, ranks=ranks, drain=drain)


def test_held_gpus_are_the_ranks_of_the_groups_by_state() -> None:
    metrics = PoolMetrics()
    groups = (
        group(GroupState.BUSY, ranks=8),
        group(GroupState.IDLE, ranks=2),
        group(GroupState.IDLE, ranks=2, drain=True),
    )
    metrics.update(PoolView(name="video", groups=groups))
    held = {
        state: read(metrics, "daybreak_gpus_held", pool="video", state=state)
        for state in ("starting", "loading", "idle", "busy", "draining", "lost")
    }
    assert held == {"starting": 0, "loading": 0, "idle": 2, "busy": 8, "draining": 2, "lost": 0}


def test_a_gateway_that_is_cut_off_from_redis_stops_exporting_old_numbers_after_a_minute() -> None:
    """Queries take the maximum over gateways: its old queue would hide the true one, and its wake would never end."""
    clock = Clock()
    metrics = PoolMetrics(clock=clock)
    metrics.update(PoolView(name="video", queued=7))
    metrics.update_totals(PoolTotals(name="video", submitted=9))
    metrics.update_server(SERVER)
    queued = {"name": "daybreak_pool_tasks", "pool": "video", "state": "queued"}
    clock.now += STALE_S
    metrics.update_server(None)
    assert read(metrics, **queued) == 7
    assert read(metrics, "daybreak_redis_up") == 0
    clock.now += 1
    assert read(metrics, **queued) is None
    assert read(metrics, "daybreak_tasks_submitted_total", pool="video") is None
    assert read(metrics, "daybreak_redis_up") == 0
    metrics.update_server(SERVER)
    assert read(metrics, **queued) == 7
