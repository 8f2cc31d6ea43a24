"""The intended load, what it means for each shard, and where pools land on a Redis Cluster."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from verification.benchmarks.shard_simulation.costs import Costs

SLOTS = 16384
DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Assumptions:
    """The assumptions about the whole system. They are not measured."""

    tasks_s: float = 100_000
    groups: int = 10_000
    subscribers: int = 1_000_000
    shards: int = 32
    """The number of pools. Each pool has one hash tag, and in this simulation a node of its own."""
    busy: float = 0.8
    """Share of the groups at work: with 10,000 groups and 100,000 tasks/s, a task runs for 80 ms."""
    reports: float = 0.0
    """Progress reports per task. Tasks as short as these have none."""
    event_bytes: int = 260
    """The size of an event on the wire to a gateway: id, four fields, JSON."""
    subscribers_a_gateway: int = 5_000
    submits_a_gateway_s: float = 1_500
    follow_all: bool = False
    """``True``: each gateway follows every pool, as on one machine. ``False``: each subscriber is routed to a gateway
    that follows the pool of its task."""
    pools_a_gateway: int = 1
    lease_s: float = 15.0
    retention_s: float = 7 * DAY_S
    queued: int = 1_000_000
    hottest: float = 1.0
    """The load of the hottest pool, divided by the mean load."""

    @property
    def run_s(self) -> float:
        """How long a task runs."""
        return self.busy * self.groups / self.tasks_s

    @property
    def gateways(self) -> int:
        """The number of gateways that the subscribers or the submits need, whichever is larger."""
        wanted = max(self.subscribers / self.subscribers_a_gateway, self.tasks_s / self.submits_a_gateway_s)
        return max(1, math.ceil(wanted))

    @property
    def readers(self) -> float:
        """How many gateways follow one pool."""
        if self.follow_all:
            return float(self.gateways)
        return max(1.0, self.gateways * self.pools_a_gateway / self.shards)

    @property
    def tickers(self) -> float:
        """How many gateways tick one pool: as many as follow it."""
        return self.readers

    @property
    def tasks_a_shard(self) -> float:
        """Tasks per second of the hottest shard."""
        return self.tasks_s / self.shards * self.hottest

    @property
    def groups_a_shard(self) -> float:
        """The number of groups of the hottest shard."""
        return self.groups / self.shards * self.hottest

    @property
    def events_a_shard(self) -> float:
        """Events per second of the hottest shard: queued, started, ended, and reports."""
        return self.tasks_a_shard * (3 + self.reports)


def load(assumed: Assumptions, costs: Costs) -> Mapping[str, float]:
    """The share of the hottest shard's core that each operation takes.

    Each call that ends a task also claims the next one, because the model assumes that a task always waits.
    """
    tasks, groups = assumed.tasks_a_shard, assumed.groups_a_shard
    return {
        "submit": tasks * costs.submit,
        "settle and claim": tasks * costs.settle,
        "report": tasks * assumed.reports * costs.report,
        "events to gateways": assumed.events_a_shard * assumed.readers * event_out(assumed, costs),
        "refresh of groups": groups / (assumed.lease_s / 3) * costs.refresh,
        "renewal of leases": (groups / (assumed.lease_s / 3) * costs.renew)
        if assumed.run_s > assumed.lease_s / 3
        else 0.0,
        "tick": assumed.tickers * costs.tick,
    }


def event_out(assumed: Assumptions, costs: Costs) -> float:
    """Seconds to send an event to a reader. When events come fast, a reader reads many at once, and each costs less."""
    return costs.event_out_many if assumed.events_a_shard > 1_000 else costs.event_out


def fan_out_bytes_s(assumed: Assumptions) -> float:
    """Bytes per second that the hottest shard sends to gateways."""
    return assumed.events_a_shard * assumed.readers * assumed.event_bytes


def memory_bytes(assumed: Assumptions, costs: Costs) -> tuple[float, float]:
    """Memory of the hottest shard for its queued tasks, and for the ended tasks that it keeps."""
    waiting = assumed.queued / assumed.shards * assumed.hottest * costs.queued_bytes
    return waiting, assumed.tasks_a_shard * assumed.retention_s * costs.ended_bytes


def slot(tag: str) -> int:
    """The slot of a hash tag: CRC16 (XMODEM) modulo 16384, as in Redis Cluster."""
    crc = 0
    for byte in tag.encode():
        crc ^= byte << 8
        for _ in range(8):
            crc = ((crc << 1) ^ 0x1021 if crc & 0x8000 else crc << 1) & 0xFFFF
    return crc % SLOTS


def pools_by_node(pools: int, nodes: int) -> Counter[int]:
    """How many of the pools `pool-0`, `pool-1`, … land on each node, if the nodes hold equal ranges of slots."""
    return Counter(slot(f"pool-{at}") * nodes // SLOTS for at in range(pools))
