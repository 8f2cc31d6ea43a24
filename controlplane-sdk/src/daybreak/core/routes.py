"""The routes of tasks and pools. A function with the name of a route builds its :class:`ApiRequest`, and sends nothing.

:func:`list_tasks` is the exception: it needs several requests, so it is an :class:`Operation`.

Functions raise ``ArgumentError`` for an argument that no request can carry.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, TypeAlias
from urllib.parse import quote

from daybreak.core.effects import Emit, HttpRequest, Operation, Reply
from daybreak.core.replies import parse, raise_for_status
from daybreak.core.retry import ApiRequest, Repeat, Retry, request_with_retries
from daybreak.errors import ArgumentError
from daybreak.wire import (
    BatchResult,
    Estimate,
    Pool,
    PoolList,
    Priority,
    SubmitRequest,
    Task,
    TaskList,
    TaskState,
)
from daybreak.wire.base import format_time
from daybreak.wire.tasks import MAX_LIST

TaskRef: TypeAlias = Task | str
"""A task, or its id."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """A preview image of a running task, at most 32 KiB."""

    content: bytes
    content_type: str


def task_path(task: TaskRef, *rest: str) -> str:
    """The path of a task, or of a resource below it (``rest``).

    :raises ArgumentError: if a part is not valid UTF-8.
    """
    task_id = task.id if isinstance(task, Task) else task
    return "/".join(["/v1/tasks", *(_quote_segment(part) for part in (task_id, *rest))])


def _quote_segment(part: str) -> str:
    """Quote one segment of a path. Raises ``ArgumentError`` if the text is not valid UTF-8."""
    try:
        return quote(part, safe="")
    except UnicodeEncodeError as exc:
        raise ArgumentError(f"{part!r} cannot be sent: it is not valid UTF-8") from exc


def new_key() -> str:
    """A new, unique idempotency key."""
    return uuid.uuid4().hex


def _idempotency_header(idempotency_key: str | None) -> dict[str, str]:
    """The header with the caller's key, or with a new key. Raises ``ArgumentError`` if no header can carry the key."""
    key = idempotency_key or new_key()
    if not (key.isascii() and key.isprintable()):
        raise ArgumentError(
            f"the idempotency key {key!r} cannot be sent: use printable ASCII characters only"
        )
    return {"Idempotency-Key": key}


def require_json(value: Any, name: str) -> None:
    """Raise ``ArgumentError`` if JSON in UTF-8 cannot represent a part of the value. The error says which part."""
    match value:
        case float() if not isfinite(value):
            raise ArgumentError(f"{name} is {value}: JSON has no such number")
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise ArgumentError(f"{name} is not valid UTF-8: {value!r}") from exc
        case Mapping():
            for key, inner in value.items():
                require_json(key, f"a key in {name}")
                require_json(inner, f"{name}.{key}")
        case list() | tuple():
            for index, inner in enumerate(value):
                require_json(inner, f"{name}[{index}]")
        case None | bool() | int() | float() | str():
            pass
        case _:
            raise ArgumentError(
                f"{name} is of type {type(value).__name__}, which JSON cannot represent: "
                "convert it to text, a number, a list or a dict"
            )


def submit_body(
    pool: str,
    input: Mapping[str, Any],
    *,
    priority: Priority | str | None = None,
    start_at: datetime | None = None,
    start_within_s: float | None = None,
    run_within_s: float | None = None,
    max_strikes: int | None = None,
    metadata: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """The body of ``POST /v1/tasks``.

    Only the server validates the input, so that the rules and messages exist in one place. This function
    checks only the following:

    :raises ArgumentError: if JSON cannot represent a value.
    :raises TypeError: if ``input``, ``metadata`` or ``start_at`` has the wrong type.
    :raises ValueError: if ``start_at`` has no time zone.
    """
    if not isinstance(input, Mapping):
        raise TypeError(f"input must be a mapping such as a dict, not {type(input).__name__}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping such as a dict, not {type(metadata).__name__}")
    if start_at is not None and not isinstance(start_at, datetime):
        raise TypeError(f"start_at must be a datetime with a time zone, not {type(start_at).__name__}")
    if start_at is not None and start_at.tzinfo is None:
        raise ValueError("start_at needs a time zone, such as datetime.now(UTC)")
    body: dict[str, Any] = {
        "pool": pool,
        "input": dict(input),
        "priority": str(priority) if priority is not None else None,
        "start_at": format_time(start_at) if start_at is not None else None,
        "start_within_s": start_within_s,
        "run_within_s": run_within_s,
        "max_strikes": max_strikes,
        "metadata": dict(metadata) if metadata is not None else None,
    }
    body = {name: value for name, value in body.items() if value is not None}
    for name, value in body.items():
        require_json(value, name)
    return body


def submit(body: Mapping[str, Any], *, idempotency_key: str | None) -> ApiRequest[Task]:
    """``POST /v1/tasks``."""
    headers = _idempotency_header(idempotency_key)
    request = HttpRequest(method="POST", path="/v1/tasks", json=dict(body), headers=headers)
    return ApiRequest(request=request, read=lambda reply: parse(reply, Task))


def submit_batch(
    tasks: Iterable[SubmitRequest | Mapping[str, Any]], *, idempotency_key: str | None
) -> ApiRequest[BatchResult]:
    """``POST /v1/tasks:batch``."""
    bodies = [
        task.model_dump(mode="json", exclude_none=True) if isinstance(task, SubmitRequest) else dict(task)
        for task in tasks
    ]
    require_json(bodies, "tasks")
    headers = _idempotency_header(idempotency_key)
    request = HttpRequest(method="POST", path="/v1/tasks:batch", json={"tasks": bodies}, headers=headers)
    return ApiRequest(request=request, read=lambda reply: parse(reply, BatchResult))


def estimate(body: Mapping[str, Any]) -> ApiRequest[Estimate]:
    """``POST /v1/estimate``, which changes nothing."""
    request = HttpRequest(method="POST", path="/v1/estimate", json=dict(body))
    return ApiRequest(request=request, read=lambda reply: parse(reply, Estimate))


def get(task: TaskRef) -> ApiRequest[Task]:
    """``GET /v1/tasks/{id}``."""
    request = HttpRequest(method="GET", path=task_path(task))
    return ApiRequest(request=request, read=lambda reply: parse(reply, Task))


def cancel(task: TaskRef) -> ApiRequest[Task]:
    """``POST /v1/tasks/{id}/cancel``, which is idempotent."""
    request = HttpRequest(method="POST", path=task_path(task, "cancel"))
    return ApiRequest(request=request, read=lambda reply: parse(reply, Task))


def replay(task: TaskRef, *, idempotency_key: str | None) -> ApiRequest[Task]:
    """``POST /v1/tasks/{id}/replay``."""
    headers = _idempotency_header(idempotency_key)
    request = HttpRequest(method="POST", path=task_path(task, "replay"), headers=headers)
    return ApiRequest(request=request, read=lambda reply: parse(reply, Task))


def delete(task: TaskRef) -> ApiRequest[bool]:
    """``DELETE /v1/tasks/{id}``."""

    def read(reply: Reply) -> bool:
        raise_for_status(reply)
        return True

    request = HttpRequest(method="DELETE", path=task_path(task))
    return ApiRequest(request=request, read=read, repeat=Repeat.NOT_FOUND, result_if_deleted=True)


def pool(name: str) -> ApiRequest[Pool]:
    """``GET /v1/pools/{name}``."""
    request = HttpRequest(method="GET", path=f"/v1/pools/{_quote_segment(name)}")
    return ApiRequest(request=request, read=lambda reply: parse(reply, Pool))


def pools() -> ApiRequest[tuple[Pool, ...]]:
    """``GET /v1/pools``."""
    request = HttpRequest(method="GET", path="/v1/pools")
    return ApiRequest(request=request, read=lambda reply: tuple(parse(reply, PoolList).data))


def preview(task: TaskRef) -> ApiRequest[Preview]:
    """``GET /v1/tasks/{id}/preview``."""

    def read(reply: Reply) -> Preview:
        raise_for_status(reply)
        return Preview(content=reply.body, content_type=reply.headers.get("content-type", ""))

    return ApiRequest(request=HttpRequest(method="GET", path=task_path(task, "preview")), read=read)


def list_tasks(
    *, pool: str | None, state: TaskState | str | None, order: str, limit: int | None, retry: Retry
) -> Operation[None]:
    """Emit the tasks of ``GET /v1/tasks``, at most ``limit``. Each page is requested when the caller reaches it."""
    remaining = limit
    params = {"order": order}
    if pool is not None:
        params["pool"] = pool
    if state is not None:
        params["state"] = str(state)
    while remaining is None or remaining > 0:
        params["limit"] = str(MAX_LIST if remaining is None else min(remaining, MAX_LIST))
        request = HttpRequest(method="GET", path="/v1/tasks", params=dict(params))
        page = yield from request_with_retries(
            ApiRequest(request=request, read=lambda reply: parse(reply, TaskList)), retry
        )
        for task in page.data:
            yield Emit(task)
        if remaining is not None:
            remaining -= len(page.data)
        if not page.has_more or page.next is None:
            return
        params["after"] = page.next
