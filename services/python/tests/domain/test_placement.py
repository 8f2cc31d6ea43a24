"""Which worker runs which model."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.placement import (
    HOST,
    Placement,
    Replica,
    WantedModel,
    Worker,
    fits,
    free_place,
    place,
)

GB = 10**9
ENGINES = ("vllm", "llama.cpp")


def gpus(id: str, *gigabytes: int, engine: str = "vllm", draining: bool = False) -> Worker:
    devices = {index: size * GB for index, size in enumerate(gigabytes)}
    return Worker(id=id, engines=frozenset({engine}), devices=devices, draining=draining)


def model(alias: str, gigabytes: int | None, replicas: int = 1, devices: int = 1) -> WantedModel:
    memory = None if gigabytes is None else gigabytes * GB
    return WantedModel(alias=alias, engine="vllm", replicas=replicas, memory_bytes=memory, devices=devices)


def at(alias: str, worker: str, *devices: int) -> Replica:
    return Replica(alias=alias, worker=worker, devices=devices)


def test_replicas_of_a_model_are_spread_over_workers() -> None:
    """Each replica goes to the worker with the fewest replicas of the model."""
    two = place([model("chat", 10, replicas=2)], [gpus("a", 80, 80), gpus("b", 80)])
    assert two.replicas == (at("chat", "a", 0), at("chat", "b", 0))
    four = place([model("chat", 10, replicas=4)], [gpus("a", 80, 80), gpus("b", 80)])
    assert Counter(replica.worker for replica in four.replicas) == {"a": 2, "b": 2}


def test_a_model_goes_where_it_fills_the_gap_best() -> None:
    """The large gap stays whole for a large model."""
    placed = place([model("small", 10)], [gpus("a", 80), gpus("b", 24)])
    assert placed.replicas == (at("small", "b", 0),)


def test_a_machine_without_gpus_lacks_memory_for_the_whole_model() -> None:
    """On a machine without GPUs, a replica's number of GPUs and vLLM's share of each GPU have no effect."""
    wanted = dataclasses.replace(model("big", 30, devices=2), gpu_share=0.9)
    host = Worker(id="cpu", engines=frozenset({"vllm"}), devices={HOST: 25 * GB})
    reason = place([wanted], [host]).unplaced["big"]
    assert reason == "A replica needs 30.0 GB; the most that is free on one device is 25.0 GB, on worker cpu."


def test_every_model_gets_a_first_replica_before_one_gets_a_second() -> None:
    """A model with many replicas does not take all the memory."""
    placed = place([model("many", 20, replicas=4), model("one", 10)], [gpus("a", 40)])
    assert Counter(replica.alias for replica in placed.replicas) == {"many": 1, "one": 1}
    assert placed.unplaced == {
        "many": "A replica needs 20.0 GB; the most that is free on one device is 10.0 GB, on worker a."
    }


def test_a_replica_on_several_gpus_has_an_equal_share_on_each() -> None:
    """Tensor parallelism needs all GPUs of a replica on one worker."""
    placed = place([model("big", 120, devices=2)], [gpus("a", 80), gpus("b", 24, 80, 80)])
    assert placed.replicas == (at("big", "b", 1, 2),)
    refused = place([model("big", 120, devices=4)], [gpus("b", 80, 80, 80)])
    assert refused.unplaced == {
        "big": "A replica needs 4 GPUs on one worker; the worker with the most has 3."
    }


def test_a_worker_without_gpus_runs_models_in_its_own_memory() -> None:
    """On a worker without GPUs, the number of GPUs of a replica has no effect."""
    host = Worker(id="cpu", engines=frozenset({"vllm"}), devices={HOST: 16 * GB})
    placed = place([model("chat", 10, devices=2)], [host])
    assert placed.replicas == (at("chat", "cpu", HOST),)


def test_a_model_of_unknown_size_has_its_device_for_itself() -> None:
    """Nothing is placed beside such a model, and it is not placed beside anything."""
    placed = place([model("unknown", None), model("known", 1, replicas=2)], [gpus("a", 80, 80)])
    assert placed.replicas == (at("known", "a", 1), at("known", "a", 1), at("unknown", "a", 0))
    refused = place([model("unknown", None)], [gpus("a", 80)], [])
    crowded = place([model("unknown", None), model("known", 1)], [gpus("a", 80)], [at("known", "a", 0)])
    assert refused.replicas == (at("unknown", "a", 0),)
    assert crowded.replicas == (at("known", "a", 0),)
    assert "Set memory_bytes" in crowded.unplaced["unknown"]


def test_one_replica_is_moved_if_that_makes_room() -> None:
    """The smallest replica whose move makes enough room is moved."""
    workers = [gpus("a", 80), gpus("b", 24)]
    placed = place(
        [model("big", 70), model("small", 20), model("tiny", 4)],
        workers,
        [at("small", "a", 0), at("tiny", "b", 0)],
    )
    assert placed.replicas == (at("big", "a", 0), at("small", "b", 0), at("tiny", "b", 0))


def test_a_draining_worker_loses_its_replicas() -> None:
    """The replicas of a draining worker are placed on other workers. The replicas of other workers stay."""
    placed = place(
        [model("chat", 10, replicas=2)],
        [gpus("a", 80, draining=True), gpus("b", 80)],
        [at("chat", "a", 0), at("chat", "b", 0)],
    )
    assert placed.replicas == (at("chat", "b", 0), at("chat", "b", 0))


@pytest.mark.parametrize(
    ("workers", "reason"),
    [
        ([], "No worker is registered."),
        ([gpus("a", 80, engine="sglang")], "No worker has the engine vllm."),
        ([gpus("a", 80, draining=True)], "All workers with the engine vllm are draining."),
    ],
)
def test_the_reason_says_what_is_missing(workers: list[Worker], reason: str) -> None:
    """The reason is shown to the person who waits for the model."""
    assert place([model("chat", 10)], workers).unplaced == {"chat": reason}


def test_surplus_replicas_leave_the_fullest_worker_first() -> None:
    """The other replicas keep running."""
    current = [at("chat", "a", 0), at("chat", "a", 1), at("chat", "b", 0)]
    placed = place([model("chat", 10, replicas=2)], [gpus("a", 80, 80), gpus("b", 80)], current)
    assert placed.replicas == (at("chat", "a", 0), at("chat", "b", 0))


sizes = st.integers(1, 12).map(lambda gigabytes: gigabytes * GB)
workers = st.lists(
    st.builds(
        Worker,
        id=st.sampled_from(["a", "b", "c", "d"]),
        engines=st.frozensets(st.sampled_from(ENGINES), min_size=1),
        devices=st.one_of(
            st.builds(lambda size: {HOST: size}, sizes),
            st.lists(sizes, min_size=1, max_size=3).map(lambda found: dict(enumerate(found))),
        ),
        draining=st.booleans(),
    ),
    max_size=4,
    unique_by=lambda worker: worker.id,
)
models = st.lists(
    st.builds(
        WantedModel,
        alias=st.sampled_from(["m", "n", "o", "p", "q"]),
        engine=st.sampled_from(ENGINES),
        replicas=st.integers(0, 3),
        memory_bytes=st.one_of(st.none(), sizes),
        devices=st.integers(1, 2),
    ),
    max_size=5,
    unique_by=lambda wanted: wanted.alias,
)
replicas = st.lists(
    st.builds(
        Replica,
        alias=st.sampled_from(["m", "n", "o", "gone"]),
        worker=st.sampled_from(["a", "b", "c", "gone"]),
        devices=st.one_of(
            st.just((HOST,)), st.lists(st.integers(0, 2), min_size=1, max_size=2).map(lambda found: (*found,))
        ),
    ),
    max_size=6,
)


def check_possible(wanted: list[WantedModel], machines: list[Worker], placed: Placement) -> None:
    """No device holds more than its memory, no worker runs an engine that it lacks, no model has surplus replicas."""
    by_alias = {entry.alias: entry for entry in wanted}
    by_id = {worker.id: worker for worker in machines}
    used: Counter[tuple[str, int]] = Counter()
    users: dict[tuple[str, int], list[WantedModel]] = {}
    for replica in placed.replicas:
        worker, entry = by_id[replica.worker], by_alias[replica.alias]
        assert entry.engine in worker.engines
        assert not worker.draining
        assert len(set(replica.devices)) == (1 if HOST in worker.devices else entry.devices)
        for index in replica.devices:
            used[worker.id, index] += -(-(entry.memory_bytes or 0) // len(replica.devices))
            users.setdefault((worker.id, index), []).append(entry)
    assert all(size <= by_id[id].devices[index] for (id, index), size in used.items())
    for sharing in users.values():
        assert len(sharing) == 1 or all(entry.memory_bytes is not None for entry in sharing)
    counts = Counter(replica.alias for replica in placed.replicas)
    for entry in wanted:
        assert counts[entry.alias] <= entry.replicas
        assert (counts[entry.alias] < entry.replicas) == (entry.alias in placed.unplaced)


@given(models, workers, replicas)
def test_a_placement_is_possible_stable_and_independent_of_order(
    wanted: list[WantedModel], machines: list[Worker], current: list[Replica]
) -> None:
    """A second placement changes nothing; otherwise, models would be loaded again and again."""
    placed = place(wanted, machines, current)
    check_possible(wanted, machines, placed)
    assert place(wanted, machines, placed.replicas) == placed
    mixed = [random.Random(0).sample(found, len(found)) for found in (wanted, machines, current)]
    assert place(*mixed) == placed


@given(models, workers)
def test_a_new_model_moves_at_most_one_replica_for_each_of_its_own(
    wanted: list[WantedModel], machines: list[Worker]
) -> None:
    """A replica keeps running where it is, unless it has to make room for a new one."""
    before = place(wanted, machines)
    new = WantedModel(alias="new", engine="vllm", replicas=1, memory_bytes=4 * GB)
    after = place([*wanted, new], machines, before.replicas)
    left = Counter(before.replicas) - Counter(after.replicas)
    assert left.total() <= 1


@given(models, workers)
def test_the_loss_of_a_worker_moves_only_what_it_had(
    wanted: list[WantedModel], machines: list[Worker]
) -> None:
    """A replica of another worker moves only to make room for one that was lost or that had no place before."""
    before = place(wanted, machines)
    lost = machines[:1]
    gone = {worker.id for worker in lost}
    after = place(wanted, machines[1:], before.replicas)
    there = [replica for replica in before.replicas if replica.worker in gone]
    moved = Counter(replica for replica in before.replicas if replica.worker not in gone) - Counter(
        after.replicas
    )
    assert moved.total() <= len(there) + len(before.unplaced)
    check_possible(wanted, machines[1:], after)


def test_more_replicas_leave_the_present_ones_alone() -> None:
    """A scale-up loads only the new replicas."""
    machines = [gpus("a", 80), gpus("b", 80)]
    before = place([model("chat", 10)], machines)
    after = place([dataclasses.replace(model("chat", 10), replicas=2)], machines, before.replicas)
    assert set(before.replicas) < set(after.replicas)


def test_an_engine_that_takes_a_part_of_its_gpus_has_it_whatever_its_model_needs() -> None:
    """vLLM takes 90% of a GPU even for a model of 22 GB. A second replica on this GPU would find no memory and die."""
    chat = dataclasses.replace(model("chat", 22, replicas=2), gpu_share=0.9)
    waits = place([chat], [gpus("a", 80)])
    assert waits.replicas == (at("chat", "a", 0),)
    assert "90% of each GPU" in waits.unplaced["chat"]
    assert "gpu_memory_utilization" in waits.unplaced["chat"]
    halves = dataclasses.replace(chat, gpu_share=0.5)
    assert place([halves], [gpus("a", 80)]).replicas == (at("chat", "a", 0), at("chat", "a", 0))
    host = Worker(id="cpu", engines=frozenset({"vllm"}), devices={HOST: 64 * GB})
    assert len(place([chat], [host]).replicas) == 2, "gpu_share counted on a machine without GPUs"


def test_a_place_for_a_move_is_free_and_on_a_worker_without_the_model() -> None:
    chat, large = model("chat", 10, replicas=2), model("large", 75)
    placed = [at("chat", "a", 0), at("chat", "a", 0)]
    both = [gpus("a", 80, 80), gpus("b", 80)]
    assert free_place([chat], both, placed, chat) == at("chat", "b", 0)
    assert free_place([chat], both[:1], placed, chat) is None
    crowded = [*placed, at("large", "b", 0)]
    assert free_place([chat, large], both, crowded, chat) is None
    assert not fits([chat, large], both, crowded, at("chat", "b", 0))
    assert fits([chat, large], both, placed, at("chat", "b", 0))
