"""Each route of the server as a :class:`Call`."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from math import isfinite
from typing import Any, TypeAlias
from urllib.parse import quote

from daybreak.core.effects import Emit, HttpRequest, Operation, Reply
from daybreak.core.replies import parse, refuse
from daybreak.core.retry import Call, Repeat, Retry, calling
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
    """A picture of the work so far, at most 32 KiB."""

    content: bytes
    content_type: str


def task_path(task: TaskRef, *rest: str) -> str:
    """The path of a task, or of something below it."""
    task_id = task.id if isinstance(task, Task) else task
    return "/".join(["/v1/tasks", *(_segment(part) for part in (task_id, *rest))])


def _segment(part: str) -> str:
    """One part of a path, quoted. Raises ``ArgumentError``."""
    try:
        return quote(part, safe="")
    except UnicodeEncodeError as exc:
        raise ArgumentError(f"{part!r} is not text in UTF-8") from exc


def new_key() -> str:
    """An idempotency key that nobody else has."""
    return uuid.uuid4().hex


def _keyed(idempotency_key: str | None) -> dict[str, str]:
    """The header with the caller's key, or with one of our own. Raises ``ArgumentError``."""
    key = idempotency_key or new_key()
    if not (key.isascii() and key.isprintable()):
        raise ArgumentError(
            f"the idempotency key {key!r} cannot be sent: a header carries printable ASCII characters only"
        )
    return {"Idempotency-Key": key}


def require_json(value: Any, name: str) -> None:
    """Raise ``ArgumentError``, with the place, where a value holds what JSON in UTF-8 has no words for."""
    match value:
        case float() if not isfinite(value):
            raise ArgumentError(f"{name} is {value}: JSON has no such number")
        case str() if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError as exc:
                raise ArgumentError(f"{name} is not text in UTF-8: {value!r}") from exc
        case Mapping():
            for key, inner in value.items():
                require_json(key, f"a name in {name}")
                require_json(inner, f"{name}.{key}")
        case list() | tuple():
            for number, inner in enumerate(value):
                require_json(inner, f"{name}[{number}]")


def submission(
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
    """The body of a submit. It is the server that judges it: one authority, one set of messages.

    Raises ``ArgumentError`` only for what no request can carry.
    """
    if not isinstance(input, Mapping):
        raise TypeError(f"input must be a mapping such as a dict, not {type(input).__name__}")
    if metadata is not None and not isinstance(metadata, Mapping):
        raise TypeError(f"metadata must be a mapping such as a dict, not {type(metadata).__name__}")
    if start_at is not None and not isinstance(start_at, datetime):
        raise TypeError(f"start_at must be a datetime with a zone, not {type(start_at).__name__}")
    if start_at is not None and start_at.tzinfo is None:
        raise ValueError("start_at needs a zone, such as datetime.now(UTC)")
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


def submit(body: Mapping[str, Any], *, idempotency_key: str | None) -> Call[Task]:
    """``POST /v1/tasks``."""
    headers = _keyed(idempotency_key)
    request = HttpRequest(method="POST", path="/v1/tasks", json=dict(body), headers=headers)
    return Call(request=request, read=lambda reply: parse(reply, Task))


def submit_batch(
    tasks: Iterable[SubmitRequest | Mapping[str, Any]], *, idempotency_key: str | None
) -> Call[BatchResult]:
    """``POST /v1/tasks:batch``."""
    bodies = [
        task.model_dump(mode="json", exclude_none=True) if isinstance(task, SubmitRequest) else dict(task)
        for task in tasks
    ]
    require_json(bodies, "tasks")
    headers = _keyed(idempotency_key)
    request = HttpRequest(method="POST", path="/v1/tasks:batch", json={"tasks": bodies}, headers=headers)
    return Call(request=request, read=lambda reply: parse(reply, BatchResult))


def estimate(body: Mapping[str, Any]) -> Call[Estimate]:
    """``POST /v1/estimate``: it changes nothing."""
    request = HttpRequest(method="POST", path="/v1/estimate", json=dict(body))
    return Call(request=request, read=lambda reply: parse(reply, Estimate))


def get(task: TaskRef) -> Call[Task]:
    """``GET /v1/tasks/{id}``."""
    request = HttpRequest(method="GET", path=task_path(task))
    return Call(request=request, read=lambda reply: parse(reply, Task))


def cancel(task: TaskRef) -> Call[Task]:
    """``POST /v1/tasks/{id}/cancel``: asking twice is as asking once."""
    request = HttpRequest(method="POST", path=task_path(task, "cancel"))
    return Call(request=request, read=lambda reply: parse(reply, Task))


def replay(task: TaskRef, *, idempotency_key: str | None) -> Call[Task]:
    """``POST /v1/tasks/{id}/replay``."""
    headers = _keyed(idempotency_key)
    request = HttpRequest(method="POST", path=task_path(task, "replay"), headers=headers)
    return Call(request=request, read=lambda reply: parse(reply, Task))


def delete(task: TaskRef) -> Call[bool]:
    """``DELETE /v1/tasks/{id}``."""

    def read(reply: Reply) -> bool:
        refuse(reply)
        return True

    request = HttpRequest(method="DELETE", path=task_path(task))
    return Call(request=request, read=read, repeat=Repeat.GONE_IS_DONE, gone=True)


def pool(name: str) -> Call[Pool]:
    """``GET /v1/pools/{name}``."""
    request = HttpRequest(method="GET", path=f"/v1/pools/{_segment(name)}")
    return Call(request=request, read=lambda reply: parse(reply, Pool))


def pools() -> Call[tuple[Pool, ...]]:
    """``GET /v1/pools``."""
    request = HttpRequest(method="GET", path="/v1/pools")
    return Call(request=request, read=lambda reply: tuple(parse(reply, PoolList).data))


def preview(task: TaskRef) -> Call[Preview]:
    """``GET /v1/tasks/{id}/preview``."""

    def read(reply: Reply) -> Preview:
        refuse(reply)
        return Preview(content=reply.body, content_type=reply.headers.get("content-type", ""))

    return Call(request=HttpRequest(method="GET", path=task_path(task, "preview")), read=read)


def listing(
    *, pool: str | None, state: TaskState | str | None, order: str, limit: int | None, retry: Retry
) -> Operation[None]:
    """Emit the tasks of ``GET /v1/tasks``, page by page as they are asked for, at most ``limit`` in all."""
    left = limit
    params = {"order": order}
    if pool is not None:
        params["pool"] = pool
    if state is not None:
        params["state"] = str(state)
    while left is None or left > 0:
        params["limit"] = str(MAX_LIST if left is None else min(left, MAX_LIST))
        request = HttpRequest(method="GET", path="/v1/tasks", params=dict(params))
        page = yield from calling(Call(request=request, read=lambda reply: parse(reply, TaskList)), retry)
        for task in page.data:
            yield Emit(task)
        if left is not None:
            left -= len(page.data)
        if not page.has_more or page.next is None:
            return
        params["after"] = page.next
