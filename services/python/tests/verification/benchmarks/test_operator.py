"""The parts of the operator's benchmark that need no cluster: the wait for all pools, the tables, and simulated heads,
with a real Valkey.

``make bench-k8s`` runs the benchmark on a cluster.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from daybreak_server.adapters.ray.serve_rest import ServeRest
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.ports.cluster import ClusterError, RayCluster
from testkit.valkey import Server
from verification.benchmarks.operator import rows
from verification.benchmarks.operator.heads import Heads
from verification.benchmarks.operator.rows import Change, Idle, Size
from verification.benchmarks.operator.subject import peak_memory_mib
from verification.benchmarks.operator.watching import Observed

CLUSTER = RayCluster(
    name="echo-12345678",
    uid="u",
    resource_version="1",
    owner="o",
    revision="12345678",
    ranks=2,
    created_at=0.0,
    worker_group="ranks",
    replicas=2,
    hosts=2,
)


def pod(name: str, *, replica: str | None = None, ready: bool = True) -> dict[str, Any]:
    labels = {"ray.io/cluster": CLUSTER.name, "ray.io/node-type": "worker" if replica else "head"}
    if replica:
        labels["ray.io/worker-group-replica-name"] = replica
    conditions = [{"type": "Ready", "status": str(ready)}]
    return {"metadata": {"name": name, "labels": labels}, "status": {"conditions": conditions}}


@pytest.fixture
def heads(valkey: Server) -> Iterator[Heads]:
    simulated = Heads(valkey.url, ranks=2)
    yield simulated
    simulated.close()


async def hosts(valkey: Server) -> list[tuple[str, ...]]:
    store = RedisStore(valkey.url)
    try:
        return sorted(
            group.hosts for group in (await store.pool("echo")).groups if group.state.value == "idle"
        )
    finally:
        await store.close()


async def test_groups_come_and_go_with_their_pods_and_the_target(heads: Heads, valkey: Server) -> None:
    """A head that is not ready does not answer. A group starts when its pods are ready and Serve wants its ranks."""

    async def no_token(cluster: RayCluster, *, refresh: bool = False) -> str | None:
        return None

    serve = ServeRest(address=lambda cluster: f"{heads.url}/{cluster.name}", token=no_token)
    with pytest.raises(ClusterError):
        await serve.observe(CLUSTER, application="echo")
    heads.pod(pod("h"), gone=False)
    assert (await serve.observe(CLUSTER, application="echo")).status is None
    for name, replica in (("a", "r1"), ("b", "r1"), ("c", "r2"), ("d", "r2")):
        heads.pod(pod(name, replica=replica), gone=False)
    assert await hosts(valkey) == []
    await serve.put(CLUSTER, {"applications": [{"name": "echo", "args": {"groups": 1, "attempt": 0}}]})
    assert await hosts(valkey) == [("a", "b")]
    await serve.scale(CLUSTER, application="echo", deployment="EchoGenerator", target=4)
    view = await serve.observe(CLUSTER, application="echo")
    assert (view.target, view.running) == (4, 4)
    assert await hosts(valkey) == [("a", "b"), ("c", "d")]
    heads.pod(pod("a", replica="r1"), gone=True)
    assert await hosts(valkey) == [("c", "d")]
    assert (await serve.observe(CLUSTER, application="echo")).running == 2


def test_a_status_counts_from_its_last_change() -> None:
    """The result is the time when the last pool reached the status. Later changes of other fields do not change it."""
    observed = Observed()

    def show(name: str, ready: int, text: str = "") -> None:
        observed.pool(
            "MODIFIED", {"metadata": {"name": name}, "status": {"phase": "Ready", "ready": ready, "x": text}}
        )

    show("a", 2)
    assert observed.pools_are(2, phase="Ready", ready=2) is None
    show("b", 1)
    assert observed.pools_are(2, phase="Ready", ready=2) is None
    show("b", 2)
    at = observed.pools_are(2, phase="Ready", ready=2)
    show("a", 2, "other words")
    assert at is not None
    assert observed.pools_are(2, phase="Ready", ready=2) == at
    running = {"metadata": {"name": "p"}, "status": {"phase": "Running"}}
    observed.pod("ADDED", running)
    assert (observed.pods, observed.running) == ({"p"}, {"p"})
    observed.pod("DELETED", running)
    assert (observed.pods, observed.running) == (set(), set())


def test_the_table_counts_the_pods_of_heads_and_groups() -> None:
    """Each of the 200 pools has 12 groups of two pods, and a head. Together, the pools have 5,000 pods."""
    size = Size(pools=200, groups=12, hosts=2)
    assert size.pods == 5000
    (change,) = rows.change_rows(
        "up", Change(pods_s=100.0, pools_s=102.0, cpu_s=9.0, calls=1000.0), size.pools
    )
    assert change.ratio == pytest.approx(1.02)
    assert "5.0 calls" in change.note
    memory, *_ = rows.idle_rows(
        size, Idle(for_s=330.0, calls_an_hour=2400.0, cores=0.1, memory_mib=196.0), 98.0
    )
    assert "20.1 KiB per pod" in memory.note


def test_the_peak_of_memory_includes_memory_that_was_given_back() -> None:
    """The peak of a process still includes 64 MiB that the process has freed."""
    with open("/proc/self/statm", encoding="ascii") as file:
        resident_mib = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
    _ = len(b"x" * (64 * 2**20))
    assert peak_memory_mib(os.getpid()) >= resident_mib + 60


def test_the_table_says_what_the_restarts_measured() -> None:
    """The table shows the actions of all restarts together, and the largest memory of any restart."""
    reconciled, memory = rows.restarts(Size(pools=2, groups=1, hosts=2), [16.0, 18.0], 3.0, 540.0)
    assert (reconciled.value, reconciled.spread) == (17.0, (16.0, 18.0))
    assert reconciled.note.endswith("3 actions in all 2 restarts together")
    assert (memory.value, memory.note.partition(";")[0]) == (540.0, "the largest of 2 restarts")
