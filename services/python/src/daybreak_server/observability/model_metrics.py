"""The metrics of external workers and their models, from the latest view of the registry.

The series are made from that view at each scrape, so deleted models and lost workers leave no series behind. Every
gateway reads the same registry, so every gateway exports the same values. A gateway that no longer reaches Redis omits
the series once its view is older than ``pool_metrics.STATE_S`` seconds.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from daybreak_server.domain import models
from daybreak_server.domain.models import ModelState, ReplicaState
from daybreak_server.observability import model_catalogue as catalogue
from daybreak_server.observability.pool_metrics import STATE_S
from daybreak_server.observability.samples import Sample, families
from daybreak_server.ports.registry import ModelWake, RegistryView

MODELS_MAX = 100
"""The number of models that have series of their own. The oldest models have them; all others are counted together."""
OTHER = "other"


class ModelMetrics(Collector):
    """The metrics of workers and models. ``clock`` returns seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._latest: tuple[float, RegistryView] | None = None

    def update(self, view: RegistryView) -> None:
        """Export this view of the registry from now on."""
        self._latest = (self._clock(), view)

    def collect(self) -> Iterable[Family]:
        """The metrics; the registry of Prometheus calls this."""
        return families(self._samples())

    def _samples(self) -> Iterator[Sample]:
        if self._latest is None:
            return
        read_at, view = self._latest
        age_s = self._clock() - read_at
        if age_s > STATE_S:
            return
        yield from _of_registry(view)
        yield from _of_models(view, now_ms=view.now_ms + round(age_s * 1000))


def _of_registry(view: RegistryView) -> Iterator[Sample]:
    draining = sum(worker.draining for worker in view.workers)
    yield catalogue.WORKERS, ("active",), len(view.workers) - draining
    yield catalogue.WORKERS, ("draining",), draining
    yield catalogue.WORKERS_WANTED, (), view.plan.workers_wanted
    yield catalogue.MANAGER_UP, (), int(view.manager is not None)
    states = Counter(_state(view, alias) for alias in view.models)
    for state in ModelState:
        yield catalogue.MODELS, (state.value,), states[state]


def _state(view: RegistryView, alias: str) -> ModelState:
    plan = view.plan
    return models.view(
        view.models[alias], wanted=plan.wanted.get(alias, 0), placement=plan.placement, workers=view.workers
    ).state


class _Model(NamedTuple):
    """What is exported about one model, or about all models beyond ``MODELS_MAX`` together."""

    replicas: Counter[ReplicaState]
    wanted: int
    unplaced: int
    elapsed_s: float
    last_wake_s: float | None

    def and_(self, other: _Model) -> _Model:
        """The two together: each number is the sum, and each duration the longer one."""
        last = [wake for wake in (self.last_wake_s, other.last_wake_s) if wake is not None]
        return _Model(
            replicas=self.replicas + other.replicas,
            wanted=self.wanted + other.wanted,
            unplaced=self.unplaced + other.unplaced,
            elapsed_s=max(self.elapsed_s, other.elapsed_s),
            last_wake_s=max(last, default=None),
        )


def _of_models(view: RegistryView, *, now_ms: int) -> Iterator[Sample]:
    reported = {alias: Counter[ReplicaState]() for alias in view.models}
    for worker in view.workers:
        for replica in worker.replicas:
            if replica.alias in reported:
                reported[replica.alias][replica.state] += 1
    placed = Counter(replica.alias for replica in view.plan.placement.replicas)
    shown: dict[str, _Model] = {}
    oldest_first = sorted(view.models.values(), key=lambda model: (model.created_ms, model.alias))
    for number, record in enumerate(oldest_first):
        alias = record.alias
        wanted, wake = view.plan.wanted.get(alias, 0), view.plan.wakes.get(alias, ModelWake())
        model = _Model(
            replicas=reported[alias],
            wanted=wanted,
            unplaced=max(0, wanted - placed[alias]),
            elapsed_s=max(0.0, (now_ms - wake.since_ms) / 1000) if wake.since_ms is not None else 0.0,
            last_wake_s=wake.last_s,
        )
        name = alias if number < MODELS_MAX else OTHER
        shown[name] = shown[name].and_(model) if name in shown else model
    for name, model in shown.items():
        yield from _of_model(name, model)


def _of_model(name: str, model: _Model) -> Iterator[Sample]:
    for state in ReplicaState:
        yield catalogue.MODEL_REPLICAS, (name, state.value), model.replicas[state]
    yield catalogue.MODEL_WANTED, (name,), model.wanted
    yield catalogue.MODEL_UNPLACED, (name,), model.unplaced
    yield catalogue.MODEL_WAKE_ELAPSED, (name,), model.elapsed_s
    if model.last_wake_s is not None:
        yield catalogue.MODEL_WAKE_LAST, (name,), model.last_wake_s
