"""The pools of kind ``online``. Each has a router, a proxy and a publisher of its demand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from daybreak.wire import ErrorCode
from daybreak_server.api import serializers
from daybreak_server.api.errors import ApiError
from daybreak_server.api.intake.catalog import Catalog, PoolEntry, PoolViewCache
from daybreak_server.api.routing.demand import DemandPublisher
from daybreak_server.api.routing.failures import no_group_can_start
from daybreak_server.api.routing.pool_router import PoolRouter
from daybreak_server.api.routing.proxy import PoolProxy
from daybreak_server.api.routing.request_body import BufferedBytes
from daybreak_server.domain.kinds import PoolKind
from daybreak_server.domain.pools import PoolView
from daybreak_server.observability.router_metrics import RouterMetrics
from daybreak_server.ports.demand import DemandStore
from daybreak_server.ports.metrics import Meter
from daybreak_server.ports.tracing import Tracing
from daybreak_server.ports.upstreams import Upstreams
from daybreak_server.settings.router import RouterSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingPool:
    """The parts that serve one pool."""

    name: str
    router: PoolRouter
    proxy: PoolProxy
    publisher: DemandPublisher
    metrics: RouterMetrics

    def update(self, view: PoolView) -> None:
        """Update the router and the metrics from a new view of the pool."""
        self.router.update(view)
        self.router.show(self.metrics)


class ServingPools:
    """All serving pools of this gateway."""

    def __init__(
        self,
        catalog: Catalog,
        *,
        pool_views: PoolViewCache,
        upstreams: Upstreams,
        demand: DemandStore,
        settings: RouterSettings,
        meter: Meter,
        tracing: Tracing,
        now_ms: Callable[[], int],
        in_memory: BufferedBytes,
        gateway: str,
        on_groups: Callable[[], None],
    ) -> None:
        self._catalog = catalog
        self._upstreams = upstreams
        self._demand = demand
        self._settings = settings
        self._meter = meter
        self._tracing = tracing
        self._now_ms = now_ms
        self._in_memory = in_memory
        self._gateway = gateway
        self._on_groups = on_groups
        online = (entry for entry in catalog if entry.spec.kind == PoolKind.ONLINE)
        self._pools: Mapping[str, ServingPool] = {entry.name: self._serving(entry) for entry in online}
        for pool in self:
            pool_views.subscribe(pool.name, pool.update)

    def __iter__(self) -> Iterator[ServingPool]:
        return iter(self._pools.values())

    def get(self, name: str) -> ServingPool:
        """The pool. :raises ApiError: ``no_such_pool``, or ``conflict`` if the pool is of another kind."""
        pool = self._pools.get(name)
        if pool is None:
            entry = self._catalog.get(name)
            raise ApiError(
                ErrorCode.CONFLICT,
                f"The pool {entry.name} has the kind {entry.spec.kind}, so it answers no requests. "
                f"{entry.what_to_send}",
            )
        return pool

    def find(self, name: str) -> ServingPool | None:
        """The pool of this name, if its kind is ``online``."""
        return self._pools.get(name)

    def show_state(self) -> None:
        """Bring all gauges up to date, for a scrape."""
        for pool in self:
            pool.router.show(pool.metrics)

    def begin_close(self) -> None:
        """Refuse the requests that wait and all new ones, so that their clients can go to another gateway."""
        for pool in self:
            pool.router.close()

    def _serving(self, entry: PoolEntry) -> ServingPool:
        settings = self._settings
        router = PoolRouter(
            policy=entry.settings.routing or settings.policy,
            max_waiting=settings.max_waiting,
            max_waiting_per_tenant=settings.max_waiting_per_tenant,
            max_wait_s=settings.max_wait_s,
            on_groups=self._on_groups,
        )
        publisher = DemandPublisher(
            pool=entry.name,
            gateway=self._gateway,
            store=self._demand,
            target_load=entry.settings.target_load or entry.settings.capacity or entry.spec.capacity,
            demand=lambda: router.demand,
        )
        router.on_demand = publisher.changed
        metrics = RouterMetrics(self._meter, entry.name)
        proxy = PoolProxy(
            pool=entry.name,
            router=router,
            upstreams=self._upstreams,
            settings=settings,
            metrics=metrics,
            tracing=self._tracing,
            in_memory=self._in_memory,
            not_ready=lambda: self._not_ready(entry.name, router),
        )
        return ServingPool(name=entry.name, router=router, proxy=proxy, publisher=publisher, metrics=metrics)

    @property
    def endpoints(self) -> list[str]:
        """The endpoints of all groups that may get requests."""
        return [group.endpoint for pool in self for group in pool.router.groups]

    def _not_ready(self, pool: str, router: PoolRouter) -> ApiError:
        """The error if no group took a request in time: no group can start, none is ready yet, or all are full."""
        if router.start_failure is not None:
            return no_group_can_start(pool, router.start_failure)
        if router.groups:
            return ApiError(
                ErrorCode.NOT_READY,
                f"All groups of the pool {pool} are busy. Retry later, or allow more time.",
                retry_after_s=1.0,
            )
        wake = serializers.wake(router.view, self._now_ms()) or {}
        phase, eta_s = wake.get("phase"), wake.get("eta_s")
        progress = f" Its wake is in the phase {phase}." if phase else ""
        estimate = f" A group should be ready in about {eta_s:.0f} s." if eta_s is not None else ""
        return ApiError(
            ErrorCode.NOT_READY,
            f"No group of the pool {pool} is ready.{progress}{estimate} Retry later, or allow more time.",
            retry_after_s=max(1.0, eta_s or 5.0),
            wake=wake or None,
        )
