"""What all routes share, made once for an app."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from pydantic import BaseModel
from pydantic_core import to_json
from starlette.responses import Response

from daybreak_server.api import views
from daybreak_server.api.catalog import Catalog, PoolEntry, PoolNumbers
from daybreak_server.api.metrics import Metrics
from daybreak_server.api.principal import Principal
from daybreak_server.api.problems import not_found
from daybreak_server.api.services import Services
from daybreak_server.api.streams.following import Sources
from daybreak_server.api.streams.gate import Gate
from daybreak_server.api.streams.hub import Hub
from daybreak_server.api.submission import Submission
from daybreak_server.api.together import Together
from daybreak_server.api.turns import EventsInTurns, StoreInTurns
from daybreak_server.api.views import Shown
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.tasks import TaskRecord
from daybreak_server.ports.store import StoreError


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """The parts behind the routes."""

    services: Services
    catalog: Catalog
    numbers: PoolNumbers
    submission: Submission
    together: Together
    metrics: Metrics
    hub: Hub
    gate: Gate
    sources: Sources

    @classmethod
    def of(cls, services: Services) -> Context:
        """Compose. :raises UnknownWorkloadError: when a pool's workload is not installed."""
        timeout_s = services.settings.redis.timeout_s
        services = replace(
            services,
            store=StoreInTurns(services.store, timeout_s=timeout_s),
            events=EventsInTurns(services.events, timeout_s=timeout_s),
        )
        settings, metrics = services.settings, Metrics()
        catalog = Catalog(settings)
        numbers = PoolNumbers(services.store, services.now_ms)
        hub = Hub(services.events, metrics)
        return cls(
            services=services,
            catalog=catalog,
            numbers=numbers,
            submission=Submission(settings, catalog, numbers, services.now_ms),
            together=Together(services.store),
            metrics=metrics,
            hub=hub,
            gate=Gate(settings.http, metrics),
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

    async def show(self, record: TaskRecord) -> Shown:
        """The task as the wire has it; its pool's numbers may be a second old."""
        view = await self.view(record.pool) if record.state.waiting else None
        return views.task(record, view, self.services.now_ms())

    async def view(self, pool: str) -> PoolView | None:
        """The pool's numbers; ``None`` rather than an error, as what is shown beside them has been done."""
        latest = self.numbers.latest(pool)
        if latest is not None:
            return latest
        try:
            return await self.numbers.get(pool)
        except StoreError:
            return None


def answer(body: BaseModel | Shown, *, status: int = 200, headers: dict[str, str] | None = None) -> Response:
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
