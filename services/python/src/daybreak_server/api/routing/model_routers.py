"""The models of external workers. Each model has a router and a proxy, like a serving pool.

To its router, a model is a pool whose groups are the workers that have replicas of it. So everything that holds for
groups holds for workers. Requests wait while no worker has a ready replica. If a worker refuses a request, or breaks
before the first byte of its answer, the request goes to another worker. The router stops using a worker with a ready
replica only if the worker's lease ends, the worker drains, no connection to it can be made, or it reports that it
leaves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from daybreak.wire import ErrorCode
from daybreak.wire.workers import MODEL_HEADER
from daybreak_server.api.errors import ApiError
from daybreak_server.api.routing.forwarding import WORKER_ID_HEADER
from daybreak_server.api.routing.model_demand import ModelDemand
from daybreak_server.api.routing.pool_router import PoolRouter
from daybreak_server.api.routing.proxy import PoolProxy
from daybreak_server.api.routing.request_body import BufferedBytes
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.models import (
    ModelRecord,
    ModelState,
    ModelView,
    ReplicaState,
    WorkerRecord,
    public_reason,
    view,
)
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.domain.serving_load import Load
from daybreak_server.observability.router_metrics import RouterMetrics
from daybreak_server.ports.metrics import Meter
from daybreak_server.ports.registry import RegistryView
from daybreak_server.ports.tracing import Tracing
from daybreak_server.ports.upstreams import Upstreams
from daybreak_server.settings.router import RouterSettings

_MODEL = MODEL_HEADER.lower().encode()


@dataclass(slots=True, kw_only=True, eq=False)
class ServedModel:
    """The parts that serve one model."""

    record: ModelRecord
    router: PoolRouter
    proxy: PoolProxy
    metrics: RouterMetrics

    @property
    def ready(self) -> bool:
        """Whether at least one worker may get requests for the model."""
        return bool(self.router.groups)


class ModelRouters:
    """All models of this gateway. ``token``: the bearer token that workers demand, if they demand one."""

    def __init__(
        self,
        *,
        demand: ModelDemand,
        upstreams: Upstreams,
        settings: RouterSettings,
        token: str | None,
        meter: Meter,
        tracing: Tracing,
        in_memory: BufferedBytes,
        on_groups: Callable[[], None],
    ) -> None:
        self._demand = demand
        self._upstreams = upstreams
        self._settings = settings
        self._token = token
        self._meter = meter
        self._tracing = tracing
        self._in_memory = in_memory
        self._on_groups = on_groups
        self._models: dict[str, ServedModel] = {}
        self._view: RegistryView | None = None
        self._closing = False

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(self._models.values())

    @property
    def endpoints(self) -> list[str]:
        """The endpoints of all workers that may get requests."""
        return [group.endpoint for model in self for group in model.router.groups]

    def find(self, alias: str) -> ServedModel | None:
        """The model, if it is registered."""
        return self._models.get(alias)

    def update(self, registry: RegistryView) -> None:
        """Apply a new view of the registry."""
        self._view = registry
        for alias in self._models.keys() - registry.models.keys():
            self._remove(alias)
        groups = groups_by_model(registry.workers)
        for alias, record in registry.models.items():
            model = self._models.get(alias)
            if model is None:
                model = self._models[alias] = self._served(record)
            model.record = record
            if record.deleted:
                model.router.close(model_not_found(alias))
            model.router.update(PoolView(name=alias, groups=tuple(groups.get(alias, ()))))
            model.router.show(model.metrics)

    def show_state(self) -> None:
        """Bring all gauges up to date, for a scrape."""
        for model in self:
            model.router.show(model.metrics)

    def begin_close(self) -> None:
        """Refuse the requests that wait and all new ones, so that their clients can go to another gateway."""
        self._closing = True
        for model in self:
            model.router.close()

    def _served(self, record: ModelRecord) -> ServedModel:
        settings, alias = self._settings, record.alias
        router = PoolRouter(
            policy=settings.policy,
            max_waiting=settings.max_waiting,
            max_waiting_per_tenant=settings.max_waiting_per_tenant,
            max_wait_s=settings.max_wait_s,
            on_groups=self._on_groups,
        )
        if self._closing:
            router.close()
        metrics = RouterMetrics(self._meter, alias)
        name = (_MODEL, alias.encode())
        proxy = PoolProxy(
            pool=alias,
            router=router,
            upstreams=self._upstreams,
            settings=settings,
            metrics=metrics,
            tracing=self._tracing,
            in_memory=self._in_memory,
            not_ready=lambda: self._not_ready(alias, router),
            id_header=WORKER_ID_HEADER,
            headers=[name, (b"authorization", f"Bearer {self._token}".encode())] if self._token else [name],
            withheld=(_MODEL, b"authorization"),  # the machines of workers must not see the client's key
            answer_headers=[name],
        )
        model = ServedModel(record=record, router=router, proxy=proxy, metrics=metrics)
        self._demand.follow(alias, lambda: router.demand, lambda: model.record.target_load)
        router.on_demand = lambda: self._demand.changed(alias)
        return model

    def _remove(self, alias: str) -> None:
        model = self._models.pop(alias)
        self._demand.forget(alias)
        # A view without workers tells the requests in flight that their workers are lost.
        model.router.update(PoolView(name=alias))
        model.router.close()
        model.metrics.remove()

    def _not_ready(self, alias: str, router: PoolRouter) -> ApiError:
        """No replica took the request in time: the model is starting, or all replicas are full."""
        if router.groups:
            return ApiError(
                ErrorCode.NOT_READY,
                f"All replicas of the model {alias} are busy. Retry later, or allow more time.",
                retry_after_s=1.0,
            )
        record = self._view.models.get(alias) if self._view is not None else None
        shown = view_of(self._view, alias) if self._view is not None else None
        if self._view is None or record is None or shown is None:
            return model_not_found(alias)
        shown = replace(shown, reason=public_reason(record, shown.reason))
        wake = wake_of(self._view, alias, shown)
        eta_s = wake.get("eta_s")
        reason = f": {shown.reason.removesuffix('.')}." if shown.reason else "."
        estimate = f" A replica should be ready in about {eta_s:.0f} s." if isinstance(eta_s, float) else ""
        return ApiError(
            ErrorCode.NOT_READY,
            f"No replica of the model {alias} is ready. The model is {shown.state}{reason}{estimate} Retry later, or "
            "allow more time.",
            retry_after_s=max(1.0, eta_s if isinstance(eta_s, float) else 5.0),
            wake=wake,
        )


def groups_by_model(workers: tuple[WorkerRecord, ...]) -> Mapping[str, list[GroupRecord]]:
    """For each model, by its alias: the workers that have replicas of the model, as groups.

    A worker without a ready replica of a model counts as draining: it gets no further requests for the model,
    but may still answer earlier ones.
    """
    groups: dict[str, list[GroupRecord]] = defaultdict(list)
    for worker in workers:
        free = min((gpu.memory_free_bytes for gpu in worker.gpus), default=worker.memory_free_bytes)
        for alias in sorted({replica.alias for replica in worker.replicas}):
            mine = [
                replica
                for replica in worker.replicas
                if replica.alias == alias and replica.state is ReplicaState.READY
            ]
            groups[alias].append(
                GroupRecord(
                    id=GroupId(worker.id),
                    state=GroupState.BUSY,
                    drain=worker.draining or not mine,
                    endpoint=worker.url,
                    models=(alias,),
                    capacity=sum(replica.capacity for replica in mine),
                    load=Load(
                        in_flight=sum(replica.requests for replica in mine), free_memory_bytes=free or None
                    ),
                )
            )
    return groups


def view_of(registry: RegistryView, alias: str) -> ModelView | None:
    """What clients see of a model; ``None`` if it is not registered."""
    record = registry.models.get(alias)
    if record is None:
        return None
    wanted = registry.plan.wanted.get(alias, 0)
    if not wanted and not record.deleted and registry.demand.get(alias) and registry.demand[alias].requests:
        wanted = 1  # the manager has not seen the demand yet
    return view(record, wanted=wanted, placement=registry.plan.placement, workers=registry.workers)


def wake_of(registry: RegistryView, alias: str, shown: ModelView) -> dict[str, object]:
    """The wake of a model that is not ready (:class:`daybreak.wire.Wake`)."""
    known = registry.plan.wakes.get(alias)
    wake: dict[str, object] = {"phase": str(shown.state)}
    if shown.state in (ModelState.PLACING, ModelState.FAILED) and shown.reason:
        wake["message"] = shown.reason
    if known is not None and known.last_s is not None and shown.state is not ModelState.FAILED:
        elapsed_s = (registry.now_ms - known.since_ms) / 1000 if known.since_ms is not None else 0.0
        wake["eta_s"] = round(max(0.0, known.last_s - max(0.0, elapsed_s)), 1)
    return wake


def model_not_found(alias: str) -> ApiError:
    """There is no such model."""
    return ApiError(
        ErrorCode.MODEL_NOT_FOUND,
        f"There is no model {alias[:200]!r}. GET /v1/models lists all models; POST /v1/models/register adds one.",
    )
