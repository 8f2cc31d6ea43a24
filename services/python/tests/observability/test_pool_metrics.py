"""The metrics of pools that a gateway exports, from what it last read from Redis."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.observability.pool_metrics import PoolMetrics


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


def test_the_capacity_of_a_pool_is_that_of_the_groups_that_take_requests() -> None:
    metrics = PoolMetrics()

    def serving(name: str, state: GroupState, capacity: int, *, drain: bool = False) -> GroupRecord:
        return GroupRecord(
            id=GroupId(name), state=state, capacity=capacity, drain=drain, endpoint=f"http://{name}:1"
        )

    groups = (
        serving("idle", GroupState.IDLE, 1),
        serving("busy", GroupState.BUSY, 2),
        serving("loading", GroupState.LOADING, 4),
        serving("draining", GroupState.DRAINING, 8),
        serving("marked", GroupState.BUSY, 16, drain=True),
        GroupRecord(id=GroupId("jobs"), state=GroupState.IDLE, capacity=32),
    )
    metrics.update(PoolView(name="chat", groups=groups))
    assert read(metrics, "daybreak_pool_capacity_requests", pool="chat") == 3
