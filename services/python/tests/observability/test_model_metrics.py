"""The metrics of models and workers that a gateway exports, from its latest view of the registry."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry

from daybreak_server.domain.models import ModelRecord, ReplicaReport, ReplicaState, WorkerRecord
from daybreak_server.domain.placement import HOST, Placement, Replica
from daybreak_server.observability.model_metrics import MODELS_MAX, ModelMetrics
from daybreak_server.observability.pool_metrics import STATE_S
from daybreak_server.ports.registry import ModelWake, PlacementPlan, RegistryView


def read(metrics: ModelMetrics, name: str) -> dict[tuple[str, ...], float]:
    """The series of a metric as a scrape sees them, by the values of their labels."""
    registry = CollectorRegistry()
    registry.register(metrics)
    samples = [sample for family in registry.collect() for sample in family.samples if sample.name == name]
    return {tuple(sample.labels.values()): sample.value for sample in samples}


def model(alias: str, **changes: Any) -> ModelRecord:
    return ModelRecord(alias=alias, source="s", engine="e", **changes)


def worker(name: str, *replicas: tuple[str, ReplicaState], draining: bool = False) -> WorkerRecord:
    reports = tuple(ReplicaReport(alias=alias, state=state) for alias, state in replicas)
    return WorkerRecord(
        id=name,
        url=f"http://{name}",
        engines=frozenset({"e"}),
        devices={HOST: 1},
        draining=draining,
        replicas=reports,
    )


def registry(*models: ModelRecord, now_ms: int = 100_000, **fields: Any) -> RegistryView:
    return RegistryView(now_ms=now_ms, models={model.alias: model for model in models}, **fields)


def exported(view: RegistryView, name: str) -> dict[tuple[str, ...], float]:
    metrics = ModelMetrics()
    metrics.update(view)
    return read(metrics, name)


def test_nothing_is_exported_before_the_registry_was_read() -> None:
    assert list(ModelMetrics().collect()) == []


def test_replicas_are_counted_by_model_and_state() -> None:
    workers = (
        worker("a", ("chat", ReplicaState.READY), ("chat", ReplicaState.FAILED)),
        worker("b", ("chat", ReplicaState.READY), ("deleted", ReplicaState.DRAINING), draining=True),
    )
    view = registry(model("chat"), workers=workers)
    assert exported(view, "daybreak_model_replicas") == {
        ("chat", "starting"): 0,
        ("chat", "ready"): 2,
        ("chat", "draining"): 0,
        ("chat", "failed"): 1,
    }
    assert exported(view, "daybreak_workers") == {("active",): 1, ("draining",): 1}


def test_wanted_replicas_without_room_are_those_that_the_plan_places_nowhere() -> None:
    plan = PlacementPlan(
        wanted={"chat": 3},
        placement=Placement(replicas=(Replica(alias="chat", worker="a", devices=(HOST,)),)),
        workers_wanted=4,
    )
    view = registry(model("chat"), model("quiet"), plan=plan)
    assert exported(view, "daybreak_model_wanted_replicas") == {("chat",): 3, ("quiet",): 0}
    assert exported(view, "daybreak_model_unplaced_replicas") == {("chat",): 2, ("quiet",): 0}
    assert exported(view, "daybreak_workers_wanted") == {(): 4}
    states = exported(view, "daybreak_models")
    assert {state for state, count in states.items() if count} == {("starting",), ("registered",)}


def test_a_wake_grows_while_the_view_is_as_it_was() -> None:
    now = [0.0]
    metrics = ModelMetrics(clock=lambda: now[0])
    wakes = {"chat": ModelWake(since_ms=90_000), "quiet": ModelWake(last_s=7.5)}
    metrics.update(registry(model("chat"), model("quiet"), plan=PlacementPlan(wakes=wakes)))
    assert read(metrics, "daybreak_model_wake_elapsed_seconds") == {("chat",): 10, ("quiet",): 0}
    now[0] = 2.5
    assert read(metrics, "daybreak_model_wake_elapsed_seconds") == {("chat",): 12.5, ("quiet",): 0}
    assert read(metrics, "daybreak_model_wake_last_seconds") == {("quiet",): 7.5}


def test_a_gateway_that_cannot_read_the_registry_leaves_everything_out() -> None:
    """Queries take the maximum over gateways, and this gateway's old values could be the maximum."""
    now = [0.0]
    metrics = ModelMetrics(clock=lambda: now[0])
    metrics.update(registry(model("chat"), manager="a"))
    now[0] = STATE_S
    assert read(metrics, "daybreak_manager_up") == {(): 1}
    now[0] = STATE_S + 0.1
    assert list(metrics.collect()) == []


def test_a_deleted_model_leaves_no_series() -> None:
    metrics = ModelMetrics()
    metrics.update(registry(model("chat"), model("old")))
    metrics.update(registry(model("chat")))
    assert read(metrics, "daybreak_model_wanted_replicas") == {("chat",): 0}


def test_models_beyond_the_limit_are_counted_together() -> None:
    """The oldest models keep series of their own."""
    names = [f"m{number}" for number in range(MODELS_MAX + 2)]
    records = [model(name, created_ms=number) for number, name in enumerate(names)]
    plan = PlacementPlan(
        wanted=dict.fromkeys(names, 2),
        wakes={names[-2]: ModelWake(since_ms=99_000), names[-1]: ModelWake(since_ms=95_000, last_s=3.0)},
    )
    ready = [(name, ReplicaState.READY) for name in names]
    view = registry(*reversed(records), plan=plan, workers=(worker("a", *ready),))
    wanted = exported(view, "daybreak_model_wanted_replicas")
    assert set(wanted) == {(name,) for name in names[:MODELS_MAX]} | {("other",)}
    assert wanted["other",] == 4
    assert exported(view, "daybreak_model_replicas")["other", "ready"] == 2
    assert exported(view, "daybreak_model_wake_elapsed_seconds")["other",] == 5
    assert exported(view, "daybreak_model_wake_last_seconds") == {("other",): 3}


def test_a_manager_is_up_while_somebody_holds_the_lease() -> None:
    assert exported(registry(manager="a"), "daybreak_manager_up") == {(): 1}
    assert exported(registry(), "daybreak_manager_up") == {(): 0}
