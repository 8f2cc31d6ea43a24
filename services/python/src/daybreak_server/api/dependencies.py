"""What all routes share, made once for an app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from daybreak_server.api import serializers
from daybreak_server.api.auth.principal import Principal
from daybreak_server.api.problems import not_found
from daybreak_server.api.serializers import Json
from daybreak_server.api.services import Services
from daybreak_server.api.store.admission import BoundedEvents, BoundedStore
from daybreak_server.api.store.catalog import Catalog, PoolEntry, PoolViewCache
from daybreak_server.api.store.submission import Submission
from daybreak_server.api.store.submit_batching import SubmitBatcher
from daybreak_server.api.streaming.broadcaster import Broadcaster
from daybreak_server.api.streaming.stream_limits import StreamLimits
from daybreak_server.api.streaming.subscription import Sources
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import TaskRecord
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.ports.store_errors import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Dependencies:
    """The parts behind the routes."""

    services: Services
    catalog: Catalog
    numbers: PoolViewCache
    submission: Submission
    submit_batcher: SubmitBatcher
    metrics: GatewayMetrics
    hub: Broadcaster
    gate: StreamLimits
    sources: Sources

    @classmethod
    def of(cls, services: Services) -> Dependencies:
        """Compose. :raises UnknownWorkloadError: when a pool's workload is not installed."""
        timeout_s = services.settings.redis.timeout_s
        services = replace(
            services,
            store=BoundedStore(services.store, timeout_s=timeout_s),
            events=BoundedEvents(services.events, timeout_s=timeout_s),
        )
        settings, metrics = services.settings, GatewayMetrics()
        catalog = Catalog(settings)
        numbers = PoolViewCache(services.store, services.now_ms)
        hub = Broadcaster(services.events, metrics)
        return cls(
            services=services,
            catalog=catalog,
            numbers=numbers,
            submission=Submission(settings, catalog, numbers, services.now_ms),
            submit_batcher=SubmitBatcher(services.store),
            metrics=metrics,
            hub=hub,
            gate=StreamLimits(settings.http, metrics),
            sources=Sources(
                hub=hub,
                store=services.store,
                events=services.events,
                numbers=numbers,
                now_ms=services.now_ms,
                heartbeat_s=settings.http.heartbeat_s,
                timeout_s=timeout_s,
            ),
        )

    async def record(self, caller: Principal, task: str) -> tuple[TaskRecord, PoolEntry]:
        """The caller's task. :raises ApiError: ``not_found``, also when it is another tenant's."""
        task_id, entry = self.catalog.of_task(task)
        record = await self.services.store.get(task_id)
        if record is None or record.tenant != caller.tenant:
            raise not_found("There is no such task.")
        return record, entry

    async def show(self, record: TaskRecord) -> Json:
        """The task as the wire has it; its pool's numbers may be a second old."""
        view = await self.view(record.pool) if record.state.waiting else None
        return serializers.task(record, view, self.services.now_ms())

    async def view(self, pool: str) -> PoolView | None:
        """The pool's numbers; ``None`` rather than an error, as what is shown beside them has been done."""
        latest = self.numbers.latest(pool)
        if latest is not None:
            return latest
        try:
            return await self.numbers.get(pool)
        except StoreError:
            return None


def answer(body: BaseModel | Json, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """JSON without absent fields."""
    if isinstance(body, BaseModel):
        written = body.model_dump_json(exclude_none=True).encode()
    else:
        written = to_json(body, inf_nan_mode="null")
    return _Json(written, status, headers)


class _Json(Response):
    """JSON whose headers are written as they are sent."""

    def __init__(self, body: bytes, status: int, headers: Mapping[str, str] | None) -> None:
        self.status_code = status
        self.background = None
        self.body = body
        self.raw_headers = [
            (b"content-length", b"%d" % len(body)),
            (b"content-type", b"application/json"),
            *(
                (name.lower().encode("latin-1"), value.encode("latin-1"))
                for name, value in (headers or {}).items()
            ),
        ]
