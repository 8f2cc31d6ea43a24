"""The plan of the manager: how many replicas each model wants, where they run, and how many workers are needed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from daybreak_server.domain.models import Demand, ModelRecord, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST
from daybreak_server.model_placement.plan import plan, removable
from daybreak_server.ports.registry import ModelWake, PlacementPlan, RegistryView
from testkit.registry_driver import model, plan_with, report, worker

GB = 10**9
NOW_MS = 1_800_000_000_000


def view(
    *models: ModelRecord,
    workers: tuple[WorkerRecord, ...] = (),
    demand: dict[str, Demand] | None = None,
    planned: PlacementPlan | None = None,
    now_ms: int = NOW_MS,
) -> RegistryView:
    return RegistryView(
        now_ms=now_ms,
        models={entry.alias: entry for entry in models},
        workers=workers,
        demand=demand or {},
        plan=planned or PlacementPlan(),
    )


def planned(before: RegistryView, *, later_ms: int = 0, **changes: object) -> RegistryView:
    """The view ``before``, ``later_ms`` later, with the plan for ``before`` and with ``changes``."""
    return replace(before, plan=plan(before), now_ms=before.now_ms + later_ms, **changes)


def busy(requests: int) -> Demand:
    return Demand(requests=requests, idle_s=0)


def idle(seconds: float) -> Demand:
    return Demand(requests=0, idle_s=seconds)


# ── replicas ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_model_without_requests_has_its_minimum() -> None:
    found = plan(view(model("a"), model("b", min_replicas=2, replicas=3), workers=(worker(),)))
    assert found.wanted == {"b": 2}
    assert [replica.alias for replica in found.placement.replicas] == ["b", "b"]


def test_replicas_rise_with_demand_at_once_and_fall_after_idle_s() -> None:
    chat = model(replicas=4, target_load=2, idle_s=60)
    seen = view(chat, workers=(worker(),), demand={"chat": busy(5)})
    assert plan(seen).wanted == {"chat": 3}
    seen = planned(seen, demand={"chat": idle(59)})
    assert plan(seen).wanted == {"chat": 3}
    seen = planned(seen, demand={"chat": idle(60)})
    assert plan(seen) == PlacementPlan()


def test_a_model_without_a_worker_asks_for_one() -> None:
    """`workers_wanted` counts one worker for each replica that fits nowhere, so that KEDA starts the first workers."""
    found = plan(view(model(replicas=3, target_load=1), demand={"chat": busy(2)}))
    assert (found.workers_wanted, found.placement.unplaced) == (2, {"chat": "No worker is registered."})


def test_workers_wanted_are_those_with_replicas_and_one_for_each_that_fits_nowhere() -> None:
    workers = (
        worker("w1", devices={HOST: 20 * GB}),
        worker("w2", devices={HOST: 10 * GB}),
        worker("w3", devices={}),
    )
    found = plan(view(model(replicas=9, target_load=1), workers=workers, demand={"chat": busy(5)}))
    assert Counter(replica.worker for replica in found.placement.replicas) == {"w1": 2, "w2": 1}
    assert found.workers_wanted == 2 + 2


@pytest.mark.parametrize("remaining", [(), (worker("w1", draining=True),)])
def test_replicas_move_from_a_worker_that_is_lost_or_drains(remaining: tuple[WorkerRecord, ...]) -> None:
    seen = view(
        model(),
        workers=(*remaining, worker("w2")),
        demand={"chat": idle(1)},
        planned=plan_with(("chat", "w1")),
    )
    assert plan(seen).placement == plan_with(("chat", "w2")).placement


def test_a_replica_that_was_lost_and_that_nobody_needs_asks_for_no_worker() -> None:
    """The plan had two replicas only because workers had loaded them. One of the two is lost and fits nowhere, so the
    model now wants only the other."""
    seen = view(
        model(replicas=2),
        workers=(worker("w2", devices={HOST: 10 * GB}),),
        demand={"chat": idle(1)},
        planned=plan_with(("chat", "w1"), ("chat", "w2")),
    )
    found = plan(seen)
    assert (found.wanted, found.workers_wanted, found.placement.unplaced) == ({"chat": 1}, 1, {})
    assert plan(planned(seen)) == found


# ── the wake ──────────────────────────────────────────────────────────────────────────────────────────────


def test_a_wake_lasts_from_the_first_request_to_the_first_ready_replica() -> None:
    seen = view(model(), workers=(worker(),), demand={"chat": busy(1)})
    assert plan(seen).wakes == {"chat": ModelWake(since_ms=NOW_MS)}
    seen = planned(seen, later_ms=1000, workers=(worker(replicas=[report(state=ReplicaState.STARTING)]),))
    assert plan(seen).wakes == {"chat": ModelWake(since_ms=NOW_MS)}
    seen = planned(seen, later_ms=1500, workers=(worker(replicas=[report()]),))
    assert plan(seen).wakes == {"chat": ModelWake(last_s=2.5)}
    seen = planned(seen, later_ms=60_000, demand={"chat": idle(300)})
    assert plan(seen).wakes == {"chat": ModelWake(last_s=2.5)}
    seen = planned(seen, later_ms=60_000, demand={"chat": busy(1)}, workers=(worker(),))
    assert plan(seen).wakes == {"chat": ModelWake(since_ms=seen.now_ms, last_s=2.5)}


def test_a_wake_that_nobody_waits_for_any_more_is_not_measured() -> None:
    seen = view(model(idle_s=5), workers=(worker(),), demand={"chat": busy(1)})
    seen = planned(seen, later_ms=9000, demand={"chat": idle(5)})
    assert plan(seen).wakes == {}


# ── deleted models ────────────────────────────────────────────────────────────────────────────────────────


def test_a_deleted_model_is_removed_once_its_replicas_have_drained() -> None:
    deleted = model(deleted=True, min_replicas=1)
    running = (worker(replicas=[report(state=ReplicaState.DRAINING)]),)
    seen = view(deleted, workers=running, demand={"chat": busy(9)}, planned=plan_with(("chat", "w1")))
    assert plan(seen) == PlacementPlan()
    assert removable(seen) == []
    assert removable(planned(seen)) == []
    assert removable(planned(seen, workers=(worker(),))) == ["chat"]
    assert removable(planned(seen, workers=())) == ["chat"]


def test_a_deleted_model_stays_as_long_as_a_worker_may_be_starting_it() -> None:
    """The worker has not reported its replica yet. The model stays as long as the plan has this replica."""
    seen = view(model(deleted=True), workers=(worker(),), planned=plan_with(("chat", "w1")))
    assert removable(seen) == []
    assert removable(planned(seen)) == ["chat"]


def test_a_model_that_was_not_deleted_is_never_removed() -> None:
    assert removable(view(model())) == []


# ── for any registry ──────────────────────────────────────────────────────────────────────────────────────

ALIASES = ("m", "n", "o", "p")
IDS = ("a", "b", "c")
sizes = st.integers(1, 12).map(lambda gigabytes: gigabytes * GB)
states = st.sampled_from(ReplicaState)


@st.composite
def registries(draw: st.DrawFn) -> RegistryView:
    """A registry whose plan was made before some workers were lost or began to drain, and before demand changed."""
    models = {}
    for alias in draw(st.sets(st.sampled_from(ALIASES))):
        most = draw(st.integers(1, 4))
        models[alias] = model(
            alias,
            memory_bytes=draw(st.one_of(st.none(), sizes)),
            gpus=draw(st.integers(1, 2)),
            replicas=most,
            min_replicas=draw(st.integers(0, most)),
            target_load=draw(st.sampled_from([0.5, 1, 3])),
            idle_s=draw(st.sampled_from([0, 10])),
            deleted=draw(st.booleans()),
            fallback=draw(st.sampled_from([None, "m"])),
        )
    workers = tuple(
        worker(
            id,
            devices=draw(
                st.one_of(
                    st.builds(lambda size: {HOST: size}, sizes),
                    st.lists(sizes, max_size=3).map(lambda found: dict(enumerate(found))),
                )
            ),
            draining=draw(st.booleans()),
            replicas=[
                report(alias, draw(states)) for alias in draw(st.lists(st.sampled_from(ALIASES), max_size=2))
            ],
        )
        for id in sorted(draw(st.sets(st.sampled_from(IDS))))
    )
    demand = {
        alias: draw(st.one_of(st.integers(1, 9).map(busy), st.sampled_from([0, 5, 10, 60]).map(idle)))
        for alias in draw(st.sets(st.sampled_from(ALIASES)))
    }
    all_workers = tuple(replace(present, draining=False) for present in workers)
    all_workers += tuple(worker(id) for id in IDS if id not in {present.id for present in workers})
    before = plan(
        view(
            *models.values(),
            workers=all_workers,
            demand=dict.fromkeys(ALIASES, busy(draw(st.integers(0, 9)))),
        )
    )
    wakes = {
        alias: ModelWake(
            since_ms=draw(st.one_of(st.none(), st.integers(0, NOW_MS))),
            last_s=draw(st.sampled_from([None, 2.5])),
        )
        for alias in draw(st.sets(st.sampled_from(ALIASES)))
    }
    return view(
        *models.values(),
        workers=workers,
        demand=demand,
        planned=replace(before, wakes=wakes),
    )


@given(registries(), st.integers(0, 60_000))
def test_a_plan_is_stable(seen: RegistryView, later_ms: int) -> None:
    """A second plan for the same registry equals the first, so no manager publishes it again."""
    first = planned(seen, later_ms=later_ms)
    assert plan(first) == first.plan


@given(registries())
def test_no_model_has_more_replicas_than_it_wants_and_may_have(seen: RegistryView) -> None:
    found = plan(seen)
    placed = Counter(replica.alias for replica in found.placement.replicas)
    assert placed.keys() <= found.wanted.keys()
    for alias, wanted in found.wanted.items():
        entry = seen.models[alias]
        assert not entry.deleted
        assert placed[alias] <= wanted <= entry.replicas
        assert entry.min_replicas <= wanted
        assert (placed[alias] < wanted) == (alias in found.placement.unplaced)
    workers = {replica.worker for replica in found.placement.replicas}
    assert workers <= {present.id for present in seen.workers if not present.draining}
    lacking = sum(found.wanted.values()) - placed.total()
    assert found.workers_wanted == len(workers) + lacking


@given(registries())
def test_demand_is_met_at_once(seen: RegistryView) -> None:
    found = plan(seen)
    for alias, entry in seen.models.items():
        if not entry.deleted:
            capacity = found.wanted.get(alias, 0) * entry.target_load
            requests = seen.demand.get(alias, Demand()).requests
            assert capacity >= requests or found.wanted[alias] == entry.replicas


@given(registries())
def test_models_that_are_idle_go_back_to_their_minimum(seen: RegistryView) -> None:
    found = plan(replace(seen, demand={alias: idle(3600) for alias in ALIASES}))
    minimum = {
        alias: entry.min_replicas
        for alias, entry in seen.models.items()
        if entry.min_replicas and not entry.deleted
    }
    assert found.wanted == minimum


@given(registries())
def test_replicas_that_stay_wanted_stay_where_they_are(seen: RegistryView) -> None:
    """A replica moves only if its worker cannot run it, or to make room for another replica that fits nowhere else."""
    first = planned(seen)
    assume(not first.plan.placement.unplaced)
    again = planned(replace(first, workers=(*first.workers, worker("new"))))
    assert set(first.plan.placement.replicas) == set(again.plan.placement.replicas)
