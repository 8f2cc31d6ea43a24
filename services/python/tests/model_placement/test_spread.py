"""If a worker has two replicas of a model and another worker has none, one of these replicas moves to the other worker.

During the move, the model has at least as many ready replicas as before.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak_server.domain.models import Demand, ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST, Replica
from daybreak_server.domain.spread import SPREAD_AFTER_MS
from daybreak_server.model_placement.plan import plan
from daybreak_server.ports.registry import PlacementPlan, RegistryView
from testkit.registry_driver import model, plan_with, worker

GB = 10**9
NOW_MS = 1_800_000_000_000
STATES = Mapping[Replica, ReplicaState]


class World:
    """Workers that do what the plan says, and a clock that tests advance."""

    def __init__(
        self, *models: ModelRecord, workers: Iterable[WorkerRecord], placed: Iterable[str] = ()
    ) -> None:
        """``placed``: for each replica of the model ``chat``, the worker that runs it."""
        self.view = RegistryView(
            now_ms=NOW_MS,
            models={entry.alias: entry for entry in models},
            workers=tuple(workers),
            plan=plan_with(*[("chat", on) for on in placed]),
        )

    def step(self, later_ms: int = 0, states: STATES | None = None) -> Counter[str]:
        """Workers report, and the manager plans. Returns how many replicas of ``chat`` each worker has.

        :param states: The states of some replicas. All other replicas are ready.
        """
        reported = [
            _reporting(record, self.view.plan.placement.replicas, states or {})
            for record in self.view.workers
        ]
        self.view = replace(self.view, workers=tuple(reported), now_ms=self.view.now_ms + later_ms)
        self.view = replace(self.view, plan=plan(self.view))
        return self.placed("chat")

    def placed(self, alias: str) -> Counter[str]:
        return Counter(found.worker for found in self.view.plan.placement.replicas if found.alias == alias)

    def change(self, *workers: WorkerRecord) -> None:
        self.view = replace(self.view, workers=workers)

    @property
    def new(self) -> Replica | None:
        """The replica that starts for a move of ``chat``."""
        move = self.view.plan.spread.moves.get("chat")
        return move.replica if move is not None else None


def _reporting(record: WorkerRecord, placed: Iterable[Replica], states: STATES) -> WorkerRecord:
    reports = [
        ReplicaReport(alias=found.alias, state=states.get(found, ReplicaState.READY), devices=found.devices)
        for found in placed
        if found.worker == record.id
    ]
    return replace(record, replicas=tuple(reports))


def two_on_one(**fields: int) -> World:
    """Both replicas of ``chat`` are on ``a``, because ``b`` was away."""
    chat = model(replicas=2, min_replicas=2, **fields)
    return World(chat, workers=[worker("a"), worker("b")], placed=["a", "a"])


def test_a_worker_that_came_back_gets_a_replica_of_a_worker_that_has_two() -> None:
    """The new replica starts first, and the old one drains once the new one is ready."""
    world = two_on_one()
    assert world.step() == {"a": 2}
    assert world.step(SPREAD_AFTER_MS - 1) == {"a": 2}
    assert world.step(1) == {"a": 2, "b": 1}
    assert world.new is not None
    for _ in range(3):
        assert world.step(600_000, {world.new: ReplicaState.STARTING}) == {"a": 2, "b": 1}
    assert world.step() == {"a": 1, "b": 1}
    before = world.view.plan
    world.change(*world.view.workers, worker("c"))
    for _ in range(2):
        world.step(10 * SPREAD_AFTER_MS)
        assert world.view.plan == before, "an even spread changed"


def test_the_worker_must_have_been_back_without_interruption() -> None:
    """A worker that comes and goes would load the model again and again."""
    world = two_on_one()
    for _ in range(5):
        assert world.step(SPREAD_AFTER_MS - 1) == {"a": 2}
        both = world.view.workers
        world.change(both[0])
        assert world.step(1) == {"a": 2}
        world.change(*both)
        assert world.step() == {"a": 2}


def test_a_worker_without_room_gets_nothing() -> None:
    world = World(
        model(replicas=2, min_replicas=2),
        workers=[worker("a"), worker("b", devices={HOST: 9 * GB})],
        placed=["a", "a"],
    )
    world.step()
    assert world.step(10 * SPREAD_AFTER_MS) == {"a": 2}
    assert not world.view.plan.spread.moves


def test_a_new_replica_that_fails_ends_the_move_and_the_next_try_comes_later() -> None:
    world = two_on_one()
    world.step()
    for failures in range(3):
        pause_ms = SPREAD_AFTER_MS << failures
        assert world.step(pause_ms - 1) == {"a": 2}
        assert world.step(1) == {"a": 2, "b": 1}
        assert world.new is not None
        assert world.step(0, {world.new: ReplicaState.FAILED}) == {"a": 2}


def test_the_replica_that_answers_stays_and_the_one_that_fails_moves() -> None:
    """A worker may lack room for its second replica, which then never becomes ready."""
    gpus = {0: 80 * GB, 1: 80 * GB}
    world = World(
        model(replicas=2, min_replicas=2), workers=[worker("a", devices=gpus), worker("b", devices=gpus)]
    )
    good, bad = (Replica(alias="chat", worker="a", devices=(index,)) for index in (0, 1))
    placement = replace(world.view.plan.placement, replicas=(good, bad))
    world.view = replace(world.view, plan=replace(world.view.plan, placement=placement))
    states = {bad: ReplicaState.FAILED}
    world.step(0, states)
    world.step(SPREAD_AFTER_MS, states)
    assert world.new is not None
    assert world.step(0, {**states, world.new: ReplicaState.STARTING}) == {"a": 2, "b": 1}
    world.step(0, states)
    assert set(world.view.plan.placement.replicas) == {good, Replica(alias="chat", worker="b", devices=(0,))}


def test_no_ready_replica_leaves_while_another_one_is_missing() -> None:
    """Three replicas are wanted, and one of them restarts just when the new replica is ready."""
    world = World(
        model(replicas=3, min_replicas=3),
        workers=[worker("a"), worker("b"), worker("c")],
        placed=["a", "a", "c"],
    )
    restarts = {Replica(alias="chat", worker="c", devices=(HOST,)): ReplicaState.STARTING}
    world.step()
    world.step(SPREAD_AFTER_MS)
    assert world.step(0, restarts) == {"a": 2, "b": 1, "c": 1}
    assert world.step() == {"a": 1, "b": 1, "c": 1}


def test_a_model_that_needs_the_room_gets_it_at_once() -> None:
    """The new replica of a move leaves at once if a wanted replica of another model needs its room."""
    world = two_on_one(memory_bytes=40 * GB)
    world.step()
    world.step(SPREAD_AFTER_MS)
    large = model("large", memory_bytes=60 * GB, min_replicas=1)
    world.view = replace(world.view, models={**world.view.models, "large": large})
    assert world.new is not None
    assert world.step(0, {world.new: ReplicaState.STARTING}) == {"a": 2}
    assert world.placed("large") == {"b": 1}


@pytest.mark.parametrize("lost", ["a", "b"])
def test_a_worker_that_is_lost_during_a_move_is_replaced(lost: str) -> None:
    world = two_on_one()
    world.step()
    world.step(SPREAD_AFTER_MS)
    new, (stays,) = world.new, [record for record in world.view.workers if record.id != lost]
    world.change(stays)
    assert world.step() == {stays.id: 2}
    if lost == "a":
        assert new in world.view.plan.placement.replicas, "the new replica was given up"
    assert not world.view.plan.spread.moves


def test_a_new_replica_that_is_needed_stays_where_it_loads() -> None:
    """The new replica stays where it loads, even if another place has become the best one for it."""
    gpus = {0: 80 * GB, 1: 80 * GB}
    other = model("other", min_replicas=1)
    world = World(
        model(replicas=2, min_replicas=2),
        other,
        workers=[worker("a"), worker("b", devices=gpus)],
        placed=["a", "a"],
    )
    beside = Replica(alias="other", worker="b", devices=(1,))
    placement = world.view.plan.placement
    placement = replace(placement, replicas=(*placement.replicas, beside))
    world.view = replace(world.view, plan=replace(world.view.plan, placement=placement))
    world.step()
    world.step(SPREAD_AFTER_MS)
    new = world.new
    assert new is not None
    world.change(world.view.workers[1])
    free = next(index for index in gpus if (index,) != new.devices)
    small = replace(beside, devices=(free,))
    placement = replace(
        world.view.plan.placement, replicas=(*world.view.plan.placement.replicas[:2], small, new)
    )
    world.view = replace(world.view, plan=replace(world.view.plan, placement=placement))
    world.step(0, {new: ReplicaState.STARTING})
    assert new in world.view.plan.placement.replicas


def test_demand_takes_the_new_replica_as_one_more() -> None:
    world = World(
        model(replicas=3, min_replicas=2, target_load=1),
        workers=[worker("a"), worker("b")],
        placed=["a", "a"],
    )
    world.step()
    world.step(SPREAD_AFTER_MS)
    new = world.new
    world.view = replace(world.view, demand={"chat": Demand(requests=3, idle_s=0)})
    assert world.step() == {"a": 2, "b": 1}
    assert new in world.view.plan.placement.replicas
    assert not world.view.plan.spread.moves


def test_a_move_makes_no_replica_more_wanted() -> None:
    """The new replica of a move must not raise the wanted number of replicas, because this number falls only when the
    model is idle."""
    world = World(model(replicas=3), workers=[worker("a"), worker("b")], placed=["a", "a"])
    world.view = replace(world.view, demand={"chat": Demand(requests=1, idle_s=0)})
    world.step()
    world.step(SPREAD_AFTER_MS)
    world.step()
    assert world.step(SPREAD_AFTER_MS) == {"a": 1, "b": 1}
    assert world.view.plan.wanted == {"chat": 2}


def test_the_end_of_a_move_makes_room_for_a_model_that_fitted_nowhere() -> None:
    """The move frees one GPU of the worker ``b``. ``place`` then frees the other one for a model that needs both."""
    small = model(replicas=2, min_replicas=2, memory_bytes=None)
    large = model("large", gpus=2, replicas=1, min_replicas=1, memory_bytes=None)
    a, b, c = (
        worker(id, devices=dict.fromkeys(range(gpus), 4 * GB)) for id, gpus in (("a", 1), ("b", 2), ("c", 1))
    )
    world = World(small, workers=[b])
    assert world.step() == {"b": 2}
    world.change(a, b, c)
    world.view = replace(world.view, models={entry.alias: entry for entry in (small, large)})
    world.step()
    world.step(SPREAD_AFTER_MS)
    assert world.placed("chat") == {"a": 1, "b": 2}
    assert world.placed("large") == {}
    world.step()
    assert world.placed("chat") == {"a": 1, "c": 1}
    assert world.placed("large") == {"b": 1}


# ── for any fleet ─────────────────────────────────────────────────────────────────────────────────────────

ALIASES = ("chat", "m", "n")
IDS = ("a", "b", "c", "d")


@st.composite
def fleets(draw: st.DrawFn) -> World:
    """Models that were placed while some workers were away. Now all workers are back."""
    entries = [
        model(
            alias,
            memory_bytes=draw(st.one_of(st.none(), st.integers(1, 12).map(lambda size: size * GB))),
            gpus=draw(st.integers(1, 2)),
            replicas=count,
            min_replicas=count,
        )
        for alias in ALIASES
        if (count := draw(st.integers(0, 4)))
    ]
    workers = [
        worker(
            id,
            devices=dict(
                enumerate(
                    draw(st.lists(st.integers(4, 24).map(lambda size: size * GB), min_size=1, max_size=3))
                )
            ),
        )
        for id in IDS
    ]
    world = World(*entries, workers=[record for record in workers if draw(st.booleans())])
    world.step()
    world.change(*workers)
    return world


def ready(view: RegistryView, states: STATES) -> Counter[str]:
    return Counter(
        found.alias
        for found in view.plan.placement.replicas
        if states.get(found) in (None, ReplicaState.READY)
    )


def _placed_others(before: PlacementPlan, after: PlacementPlan, alias: str) -> int:
    """How many new replicas the other models have. ``place`` may move one replica of this model for each of these."""
    had, has = (
        Counter(found.alias for found in found_in.spread.without_extra(found_in.placement).replicas)
        for found_in in (before, after)
    )
    return sum((has - had).values()) - max(0, has[alias] - had[alias])


@given(fleets(), st.data())
def test_moves_end_with_an_even_spread_and_never_cost_a_ready_replica(
    world: World, data: st.DataObject
) -> None:
    world.step()
    for _ in range(15):
        before = world.view.plan
        starts = {
            move.replica: data.draw(
                st.sampled_from([ReplicaState.STARTING, ReplicaState.READY, ReplicaState.FAILED])
            )
            for move in before.spread.moves.values()
            if move.replica is not None
        }
        answered = ready(world.view, starts)
        world.step(SPREAD_AFTER_MS, starts)
        after = world.view.plan
        placed = Counter(found.alias for found in after.placement.replicas)
        for alias, wanted in after.wanted.items():
            move = after.spread.moves.get(alias)
            assert placed[alias] <= wanted + (move is not None and move.replica is not None)
            left = Counter(before.placement.replicas) - Counter(after.placement.replicas)
            gone = sum(1 for found in left.elements() if found.alias == alias and starts.get(found) is None)
            gone -= _placed_others(before, after, alias)
            assert answered[alias] - gone >= min(wanted, answered[alias])
            assert gone <= 1, "more than one replica left at once"
        again = plan(world.view)
        assert again.placement == after.placement or any(starts), "planning again changed the placement"
    while any(move.replica for move in world.view.plan.spread.moves.values()):
        world.step()
    for _ in range(20):
        world.step(SPREAD_AFTER_MS << 5)
    assert not world.view.plan.spread.moves, "a move has not ended"
