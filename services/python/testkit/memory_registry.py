"""The registry of workers and models in the memory of one process, for tests that need no Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from daybreak_server.api.services import wall_ms
from daybreak_server.domain.models import Demand, ModelRecord, WorkerRecord
from daybreak_server.domain.placement import Replica
from daybreak_server.domain.policy import GRACE_MS, LEASE_STEP_MS
from daybreak_server.ports.registry import PlacementPlan, RegistryView, UnknownWorkerError, WorkerTakenError


@dataclass(slots=True)
class _Worker:
    record: WorkerRecord
    incarnation: str
    lease_end: int
    summary: object


@dataclass(slots=True)
class _Requests:
    by_alias: dict[str, int]
    lease_end: int


class MemoryRegistry:
    """Implements :class:`daybreak_server.ports.registry.Registry`."""

    def __init__(self, *, now_ms: Callable[[], int] = wall_ms) -> None:
        self._now_ms = now_ms
        self._version = 0
        self._clock = 0
        self._grace = 0
        self._ticked_ms: int | None = None
        self._models: dict[str, ModelRecord] = {}
        self._workers: dict[str, _Worker] = {}
        self._requests: dict[str, _Requests] = {}
        self._last_request_ms: dict[str, int] = {}
        self._plan = PlacementPlan()
        self._holder: tuple[str, int, int] | None = None
        self._changed = asyncio.Event()

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""

    async def view(self) -> RegistryView:
        return self._snapshot()

    async def tick(self) -> RegistryView:
        now = self._now_ms()
        silence = max(0, now - (now if self._ticked_ms is None else self._ticked_ms))
        late = silence > LEASE_STEP_MS and self._clock >= self._grace
        self._clock += min(silence, LEASE_STEP_MS)
        self._ticked_ms = now
        if late:
            self._grace = self._clock + GRACE_MS
        changed = False
        for worker in [name for name, held in self._workers.items() if self._is_over(held.lease_end)]:
            del self._workers[worker]
            changed = True
        for gateway, entry in list(self._requests.items()):
            if self._is_over(entry.lease_end):
                del self._requests[gateway]
                changed = True
            else:
                self._note_requests(entry.by_alias)
        for alias in self._last_request_ms.keys() - self._models.keys():
            del self._last_request_ms[alias]
        if changed:
            self._change()
        return self._snapshot()

    async def wait(self, *, after: int, timeout_s: float) -> int:
        try:
            async with asyncio.timeout(timeout_s):
                while self._version <= after:
                    await self._changed.wait()
        except TimeoutError:
            pass
        return self._version

    async def add_model(self, model: ModelRecord) -> bool:
        stored = self._models.get(model.alias)
        if stored is not None:
            return stored == model
        self._models[model.alias] = model
        self._change()
        return True

    async def mark_deleted(self, alias: str) -> ModelRecord | None:
        stored = self._models.get(alias)
        if stored is None:
            return None
        if not stored.deleted:
            self._models[alias] = replace(stored, deleted=True)
            self._change()
        return self._models[alias]

    async def remove_model(self, alias: str) -> None:
        stored = self._models.get(alias)
        if stored is not None and stored.deleted:
            del self._models[alias]
            self._last_request_ms.pop(alias, None)
            self._change()

    async def add_worker(self, worker: WorkerRecord, *, incarnation: str, lease_s: float) -> None:
        known = self._workers.get(worker.id)
        if (
            known is not None
            and known.incarnation != incarnation
            and known.record.url != worker.url
            and not self._is_over(known.lease_end)
        ):
            raise _taken(worker.id, known.record.url)
        self._workers[worker.id] = _Worker(
            replace(worker, seen_ms=self._now_ms()),
            incarnation,
            self._clock + round(lease_s * 1000),
            _summary(worker),
        )
        self._change()

    async def renew_worker(
        self, worker: WorkerRecord, *, incarnation: str, lease_s: float
    ) -> tuple[Replica, ...]:
        known = self._workers.get(worker.id)
        if known is None:
            raise UnknownWorkerError(f"There is no worker {worker.id}. Register it.")
        if known.incarnation != incarnation:
            raise _taken(worker.id, known.record.url)
        fixed = known.record
        known.record = replace(
            worker, url=fixed.url, engines=fixed.engines, version=fixed.version, seen_ms=self._now_ms()
        )
        known.lease_end = self._clock + round(lease_s * 1000)
        summary = _summary(worker)
        if known.summary != summary:
            known.summary = summary
            self._change()
        replicas = self._plan.placement.replicas
        return tuple(replica for replica in replicas if replica.worker == worker.id)

    async def remove_worker(self, worker: str, *, incarnation: str) -> bool:
        known = self._workers.get(worker)
        if known is None or known.incarnation != incarnation:
            return False
        del self._workers[worker]
        self._change()
        return True

    async def publish_demand(self, gateway: str, requests: Mapping[str, int], *, ttl_s: float) -> None:
        requested = {alias: number for alias, number in requests.items() if number > 0}
        before = self._requests.pop(gateway, None)
        if requested:
            self._requests[gateway] = _Requests(requested, self._clock + round(ttl_s * 1000))
            self._note_requests(requested)
        if requested != ({} if before is None else before.by_alias):
            self._change()

    async def hold_placement(self, holder: str, *, priority: int, ttl_s: float) -> bool:
        present = self._present_holder()
        if present is not None and present[0] != holder and present[1] >= priority:
            return False
        self._holder = (holder, priority, self._clock + round(ttl_s * 1000))
        if present is None or present[0] != holder:
            self._change()
        return True

    async def publish_plan(self, holder: str, plan: PlacementPlan) -> bool:
        present = self._present_holder()
        if present is None or present[0] != holder:
            return False
        self._plan = plan
        self._change()
        return True

    async def release_placement(self, holder: str) -> None:
        if self._holder is not None and self._holder[0] == holder:
            self._holder = None
            self._change()

    def _snapshot(self) -> RegistryView:
        now = self._now_ms()
        present = self._present_holder()
        demand = {}
        for alias, last_request_ms in self._last_request_ms.items():
            requests = sum(entry.by_alias.get(alias, 0) for entry in self._requests.values())
            idle_s = 0.0 if requests else max(0, self._clock - last_request_ms) / 1000
            demand[alias] = Demand(requests=requests, idle_s=idle_s)
        return RegistryView(
            now_ms=now,
            version=self._version,
            models=dict(sorted(self._models.items())),
            workers=tuple(self._workers[name].record for name in sorted(self._workers)),
            demand=demand,
            plan=self._plan,
            manager=None if present is None else present[0],
        )

    def _present_holder(self) -> tuple[str, int, int] | None:
        return None if self._holder is None or self._is_over(self._holder[2]) else self._holder

    def _is_over(self, lease_end: int) -> bool:
        """During the grace period after an outage, no lease ends."""
        return self._clock >= self._grace and lease_end <= self._clock

    def _note_requests(self, requests: Mapping[str, int]) -> None:
        for alias in requests:
            self._last_request_ms[alias] = self._clock

    def _change(self) -> None:
        self._version += 1
        self._changed.set()
        self._changed = asyncio.Event()


def _summary(worker: WorkerRecord) -> object:
    """The fields whose changes count as changes of the registry. Loads and free memory are not among them."""
    replicas = sorted(
        (report.alias, report.state, report.devices, report.reason, report.capacity)
        for report in worker.replicas
    )
    return worker.draining, sorted(worker.devices.items()), replicas


def _taken(worker: str, where: str) -> WorkerTakenError:
    return WorkerTakenError(
        f"A worker {worker} is alive at {where}. Give this one another name with --worker-id, or stop that one."
    )
