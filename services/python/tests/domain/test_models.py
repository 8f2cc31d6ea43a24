"""How many replicas of a model are wanted, and what clients see of the model."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.models import (
    Demand,
    ModelRecord,
    ModelState,
    ReplicaReport,
    ReplicaState,
    WorkerRecord,
    assignments,
    placeable,
    public_reason,
    view,
    wanted_model,
    wanted_replicas,
)
from daybreak_server.domain.placement import HOST, Placement, Replica, place

MODEL = ModelRecord(alias="chat", source="/models/chat", engine="llama.cpp", replicas=3, target_load=4)
REPLICA = Replica(alias="chat", worker="w1", devices=(HOST,))


def worker(id: str, *states: ReplicaState, reason: str = "", draining: bool = False) -> WorkerRecord:
    replicas = tuple(ReplicaReport(alias="chat", state=state, reason=reason) for state in states)
    return WorkerRecord(
        id=id,
        url=f"http://{id}:7000",
        engines=frozenset({"llama.cpp"}),
        devices={HOST: 10**10},
        draining=draining,
        replicas=replicas,
    )


def wanted(model: ModelRecord, requests: int, idle_s: float, placed: int = 0) -> int:
    return wanted_replicas(model, Demand(requests=requests, idle_s=idle_s), placed=placed)


def test_the_first_request_starts_a_replica_and_an_idle_time_stops_it() -> None:
    """The model goes from zero replicas to one and back."""
    assert wanted(MODEL, 0, math.inf) == 0
    assert wanted(MODEL, 1, 0) == 1
    assert wanted(MODEL, 0, 299, placed=1) == 1
    assert wanted(MODEL, 0, 300, placed=1) == 0


def test_replicas_follow_the_demand_up_at_once_and_down_after_the_idle_time() -> None:
    """Replicas stay for the idle time, because it takes long to load a model again."""
    assert wanted(MODEL, 5, 0) == 2
    assert wanted(MODEL, 100, 0) == 3
    assert wanted(MODEL, 1, 0, placed=3) == 3
    assert wanted(MODEL, 0, 301, placed=3) == 0


def test_min_replicas_always_run_and_a_deleted_model_does_not() -> None:
    """At least ``min_replicas`` replicas run, even without a request."""
    kept = replace(MODEL, min_replicas=2)
    assert wanted(kept, 0, math.inf) == 2
    assert wanted(replace(kept, deleted=True), 9, 0, placed=2) == 0


@given(
    st.integers(0, 1000),
    st.floats(0, 1000),
    st.integers(0, 9),
    st.integers(1, 5),
    st.integers(0, 5),
)
def test_wanted_replicas_are_within_their_bounds(
    requests: int, idle_s: float, placed: int, most: int, least: int
) -> None:
    """For any demand, the number is between ``min_replicas`` and ``replicas``."""
    least = min(least, most)
    model = replace(MODEL, replicas=most, min_replicas=least)
    assert least <= wanted(model, requests, 0 if requests else idle_s, placed) <= most


@pytest.mark.parametrize(
    ("states", "placed", "count", "state"),
    [
        ((), False, 0, ModelState.REGISTERED),
        ((), False, 1, ModelState.PLACING),
        ((), True, 1, ModelState.STARTING),
        ((ReplicaState.STARTING,), True, 1, ModelState.STARTING),
        ((ReplicaState.READY, ReplicaState.FAILED), True, 2, ModelState.READY),
        ((ReplicaState.FAILED,), True, 1, ModelState.FAILED),
        ((ReplicaState.FAILED, ReplicaState.STARTING), True, 2, ModelState.STARTING),
        ((ReplicaState.DRAINING,), False, 0, ModelState.REGISTERED),
    ],
)
def test_the_state_of_a_model_is_that_of_its_best_replica(
    states: tuple[ReplicaState, ...], placed: bool, count: int, state: ModelState
) -> None:
    """Clients see one state, however many replicas there are."""
    placement = Placement(replicas=(REPLICA,) if placed else ())
    assert view(MODEL, wanted=count, placement=placement, workers=[worker("w1", *states)]).state is state


def test_a_view_says_why() -> None:
    """The reason comes from the placement or a worker. Without such a reason, the view says when the model starts."""
    unplaced = Placement(replicas=(), unplaced={"chat": "No worker is registered."})
    assert view(MODEL, wanted=1, placement=unplaced, workers=[]).reason == "No worker is registered."
    failed = worker("w1", ReplicaState.FAILED, reason="CUDA out of memory")
    shown = view(MODEL, wanted=1, placement=Placement(replicas=(REPLICA,)), workers=[failed])
    assert shown.reason == "Worker w1 could not start it: CUDA out of memory"
    at_zero = view(replace(MODEL, min_replicas=0), wanted=0, placement=Placement(replicas=()), workers=[])
    assert at_zero.reason == "The first request starts it."
    new = view(replace(MODEL, min_replicas=1), wanted=0, placement=Placement(replicas=()), workers=[])
    assert new.reason == "It is about to be placed on a worker."
    deleted = view(replace(MODEL, deleted=True), wanted=0, placement=unplaced, workers=[failed])
    assert deleted.state is ModelState.DRAINING


def test_a_view_lists_the_workers_of_ready_replicas() -> None:
    """The router spreads the requests over these workers."""
    workers = [worker("w2", ReplicaState.READY), worker("w1", ReplicaState.READY, ReplicaState.READY)]
    shown = view(MODEL, wanted=3, placement=Placement(replicas=()), workers=workers)
    assert (shown.ready, shown.workers) == (3, ("w1", "w1", "w2"))


def test_wanted_models_are_placed_on_workers() -> None:
    """The demand determines the replicas that each worker should run."""
    count = wanted(MODEL, 5, 0)
    workers = [worker("w1"), worker("w2"), worker("w3", draining=True)]
    placement = place([wanted_model(MODEL, count)], map(placeable, workers))
    assert [len(assignments(placement, name)) for name in ("w1", "w2", "w3")] == [1, 1, 0]


@pytest.mark.parametrize(
    ("engine", "args", "share"),
    [
        ("vllm", {}, 0.9),
        ("vllm", {"gpu_memory_utilization": 0.4}, 0.4),
        ("vllm", {"gpu-memory-utilization": "0.4"}, 0.4),
        ("sglang", {"mem_fraction_static": 0.7}, 0.7),
        ("mine", {"gpu_memory_utilization": 0.5}, 0.5),
        ("vllm", {"gpu_memory_utilization": "much"}, 0.9),
        ("vllm", {"gpu_memory_utilization": 7}, 1.0),
        ("llama.cpp", {}, 0.0),
    ],
)
def test_the_part_of_a_gpu_that_an_engine_takes_is_known(
    engine: str, args: dict[str, object], share: float
) -> None:
    assert wanted_model(replace(MODEL, engine=engine, args=args), 1).gpu_share == share


def test_clients_do_not_see_in_a_reason_what_a_model_loads() -> None:
    assert public_reason(MODEL, "OSError: no /models/chat, /models/chat-2") == "OSError: no chat, chat-2"
    assert public_reason(replace(MODEL, source="s"), "It has ended.") == "It has ended."
