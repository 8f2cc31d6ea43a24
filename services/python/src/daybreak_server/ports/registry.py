"""The registry of external workers and their models, shared by all gateways and the manager.

It keeps the models that were registered, the workers (each under a lease), the demand of clients, and the placement
(what should run where). Everything about models and workers is here, so a gateway or a manager that is killed loses
nothing.

Leases end on the registry's own lease clock, which :meth:`Registry.tick` advances, so an outage of the store ends no
lease.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from daybreak_server.domain.models import Demand, ModelRecord, WorkerRecord
from daybreak_server.domain.placement import Placement, Replica
from daybreak_server.domain.spread import Spread


class UnknownWorkerError(Exception):
    """The worker is not registered (any more), so it must register again."""


class WorkerTakenError(Exception):
    """Another worker with this id is alive. The message says where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelWake:
    """The current wake and the last wake of a model."""

    since_ms: int | None = None
    """Since when the model is wanted and has no ready replica; ``None`` if it has one, or if it is not wanted."""
    last_s: float | None = None
    """How long the last wake took, from the moment when the model was wanted to its first ready replica."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementPlan:
    """What the manager has decided. It is replaced as a whole."""

    placement: Placement = field(default_factory=lambda: Placement(replicas=()))
    wanted: Mapping[str, int] = field(default_factory=dict)
    """How many replicas each model should have, by alias. Models that should have none are absent."""
    wakes: Mapping[str, ModelWake] = field(default_factory=dict)
    spread: Spread = field(default_factory=Spread)
    """Moves of replicas to workers that run no replica of the same model. The new replicas are in ``placement``."""
    workers_wanted: int = 0
    """How many workers the models need: the workers with replicas, and one more for each replica that fits nowhere."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RegistryView:
    """Everything in the registry at one moment."""

    now_ms: int
    """The clock of the store."""
    version: int = 0
    """Grows with each change of models, workers' states, demand, the plan or its manager. Changes of the
    workers' loads alone do not count."""
    models: Mapping[str, ModelRecord] = field(default_factory=dict)
    """By alias."""
    workers: tuple[WorkerRecord, ...] = ()
    """The workers that hold their lease, sorted by id."""
    demand: Mapping[str, Demand] = field(default_factory=dict)
    """By alias; aliases that were never asked for are absent."""
    plan: PlacementPlan = field(default_factory=PlacementPlan)
    manager: str | None = None
    """The manager that holds the lease ``placement``."""


class Registry(Protocol):
    """The registry. All methods raise ``StoreError`` if the store fails."""

    async def view(self) -> RegistryView:
        """Everything in the registry. Changes nothing."""

    async def tick(self) -> RegistryView:
        """Advance the lease clock, end the leases that have run out, and return everything.

        Each gateway and manager calls it each second; it does a bounded amount of work.
        """

    async def wait(self, *, after: int, timeout_s: float) -> int:
        """Wait until the version is higher than ``after``, for ``timeout_s`` at the most. Returns the version."""

    async def add_model(self, model: ModelRecord) -> bool:
        """Register a model. Returns whether its alias was free. A repeated call with the same record returns true."""

    async def mark_deleted(self, alias: str) -> ModelRecord | None:
        """Mark a model as deleted, so that its replicas drain. Returns the model, or ``None`` if there is none."""

    async def remove_model(self, alias: str) -> None:
        """Remove a model that is marked as deleted. The caller checks that no replica of the model is left."""

    async def add_worker(self, worker: WorkerRecord, *, incarnation: str, lease_s: float) -> None:
        """Register a worker. An incarnation replaces an older one that has the same URL, or whose lease has ended.

        :raises WorkerTakenError: if the older one has another URL and still holds its lease.
        """

    async def renew_worker(
        self, worker: WorkerRecord, *, incarnation: str, lease_s: float
    ) -> tuple[Replica, ...]:
        """Record a heartbeat. The URL and the engines stay as they were registered.

        Returns the replicas that the worker should run.

        :raises UnknownWorkerError: if the worker is not registered (any more).
        :raises WorkerTakenError: if another incarnation is now registered as this worker.
        """

    async def remove_worker(self, worker: str, *, incarnation: str) -> bool:
        """Remove a worker that ends. Returns whether this incarnation was the one that was registered."""

    async def publish_demand(self, gateway: str, requests: Mapping[str, int], *, ttl_s: float) -> None:
        """Say how many requests this gateway has, by alias. This replaces what the gateway said before."""

    async def hold_placement(self, holder: str, *, priority: int, ttl_s: float) -> bool:
        """Take or renew the lease ``placement``. A holder with a higher priority takes it from another holder at once.

        Returns whether ``holder`` now has the lease.
        """

    async def publish_plan(self, holder: str, plan: PlacementPlan) -> bool:
        """Replace the plan. Returns whether ``holder`` still had the lease; if not, nothing changes."""

    async def release_placement(self, holder: str) -> None:
        """End the lease ``placement``, if ``holder`` has it."""
