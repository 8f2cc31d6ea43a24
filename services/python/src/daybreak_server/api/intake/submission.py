"""Makes a task for the store from the body of a request."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from daybreak.wire import ErrorCode, SubmitRequest
from daybreak.wire import Priority as WirePriority
from daybreak_server.api.errors import ApiError, from_validation, invalid_field
from daybreak_server.api.http.request_body import canonical
from daybreak_server.api.intake.bulk_files import check_place
from daybreak_server.api.intake.catalog import Catalog, PoolEntry, PoolViewCache
from daybreak_server.api.intake.normalization import Normalizer
from daybreak_server.domain import private_inputs
from daybreak_server.domain.ids import TaskId, new_task_id
from daybreak_server.domain.tasks import NewTask, Priority, TaskRecord
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.settings.tree import Settings

MAX_INPUT_BYTES = 16 * 1024
MAX_DELAY_MS = 366 * 86_400_000
PRIORITY = {
    WirePriority.HIGH: Priority.HIGH,
    WirePriority.NORMAL: Priority.NORMAL,
    WirePriority.LOW: Priority.LOW,
}
_NORMALIZE = Normalizer(SubmitRequest)


class TaskIntake:
    """Validates requests and makes tasks from them. Each task has a cost and the tenant's weight."""

    def __init__(
        self, settings: Settings, catalog: Catalog, pool_views: PoolViewCache, now_ms: Callable[[], int]
    ) -> None:
        self._settings = settings
        self._catalog = catalog
        self._pool_views = pool_views
        self._now_ms = now_ms

    def parse(self, data: dict[str, Any]) -> tuple[SubmitRequest, PoolEntry, BaseModel]:
        """Validate a request. :raises ApiError: ``invalid_input`` or ``no_such_pool``."""
        return self._parse(self._normalized(data))

    def _normalized(self, data: dict[str, Any]) -> dict[str, Any]:
        """The normalized body. Nothing is validated here, so the pool may be missing or unknown."""
        body = _NORMALIZE(data)
        entry, task_input = self._catalog.find(body.get("pool")), body.get("input")
        if entry is not None and isinstance(task_input, dict):
            body["input"] = entry.normalize(task_input)
        return body

    def _parse(self, data: dict[str, Any]) -> tuple[SubmitRequest, PoolEntry, BaseModel]:
        try:
            request = SubmitRequest.model_validate(data)
        except ValidationError as exc:
            raise from_validation(exc) from exc
        entry = self._catalog.for_tasks(request.pool)
        try:
            params = entry.parse(request.input)
            check_place(entry, params)
        except ApiError:
            raise  # The client sees why its input is refused, so the log need not say it.
        except Exception:  # A validator has a bug. The log gets the traceback, and must hide the input.
            private_inputs.keep(request.input)
            raise
        private_inputs.keep(request.input)
        return request, entry, params

    def body_hash(self, sent: dict[str, Any]) -> str:
        """The digest by which a repeated submit is recognised. Fields that the server fills in do not change it."""
        return _hash(canonical(self._normalized(sent)))

    def make(
        self,
        data: dict[str, Any],
        *,
        tenant: str,
        key: str | None = None,
        trace: TraceContext | None = None,
        sent: dict[str, Any] | None = None,
    ) -> NewTask:
        """A task from the body of a submit.

        :param sent: The body as the client sent it, if the server has filled in fields since.
        :raises ApiError: if the body is invalid or too large, or if the pool does not exist.
        """
        filled_in = sent is not None and sent is not data
        data = self._normalized(data)
        body_hash = self.body_hash(sent) if sent is not None and filled_in else _hash(canonical(data))
        request, entry, params = self._parse(data)
        return self._task(
            entry,
            params,
            request.input,
            tenant=tenant,
            priority=PRIORITY[request.priority],
            metadata=dict(request.metadata),
            trace_context=trace,
            start_at_ms=self._start_ms(request.start_at),
            start_within_ms=_ms(request.start_within_s),
            run_within_ms=_ms(request.run_within_s),
            max_strikes=request.max_strikes,
            idempotency_key=key,
            body_hash=body_hash,
        )

    def replay(self, record: TaskRecord, *, key: str | None, trace: TraceContext | None = None) -> NewTask:
        """A new task with the input of an old one.

        :raises ApiError: if the pool no longer accepts the input.
        """
        entry = self._catalog.get(record.pool)
        private_inputs.keep(record.input_json)
        params = entry.parse_stored(record.input_json)
        check_place(entry, params)
        return self._task(
            entry,
            params,
            from_json(record.input_json),
            tenant=record.tenant,
            priority=record.priority,
            metadata=dict(record.metadata),
            trace_context=trace,
            max_strikes=record.max_strikes,
            idempotency_key=key,
            body_hash=_hash(f"replay:{record.id}"),
            replay_of=record.id,
        )

    def _task(self, entry: PoolEntry, params: BaseModel, sent: Any, *, tenant: str, **fields: Any) -> NewTask:
        input_json = entry.dump(params, sent)
        if len(input_json.encode()) > MAX_INPUT_BYTES:
            raise ApiError(
                ErrorCode.TOO_LARGE,
                f"The input is larger than the limit of {MAX_INPUT_BYTES:,} bytes as JSON. Send less.",
                limit="input_bytes",
            )
        cost = entry.cost(params)
        share = self._settings.tenants.get(tenant)
        return NewTask(
            id=TaskId(new_task_id(entry.name, at_ms=self._now_ms())),
            pool=entry.name,
            tenant=tenant,
            input_json=input_json,
            cost=cost,
            estimate_s=self.run_s(entry, cost, default=1.0) * entry.settings.ranks,
            weight=share.weight if share else 1.0,
            retention_s=entry.settings.retention_s,
            **fields,
        )

    def run_s(self, entry: PoolEntry, cost: float, *, default: float) -> float:
        """Seconds that a task of this cost runs, from the pool's history; ``default`` without a history."""
        view = self._pool_views.latest(entry.name)
        if view is None or view.seconds_per_cost is None:
            return default
        return view.seconds_per_cost * cost

    def _start_ms(self, start_at: datetime | None) -> int | None:
        if start_at is None:
            return None
        now, start = self._now_ms(), int(start_at.timestamp() * 1000)
        if start > now + MAX_DELAY_MS:
            raise invalid_field("start_at", "start_at is more than a year away. Send an earlier time.")
        return start if start > now else None


def _ms(seconds: float | None) -> int | None:
    return None if seconds is None else max(1, round(seconds * 1000))


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
