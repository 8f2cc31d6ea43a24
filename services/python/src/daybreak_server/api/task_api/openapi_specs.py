"""The OpenAPI description of each route, apart from its path and docstring.

``codes`` are the errors of the route itself. :mod:`.openapi` adds those that all routes have, such as ``internal``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

from daybreak.wire import (
    IDEMPOTENCY_KEY,
    BatchRequest,
    BatchResult,
    Estimate,
    EventList,
    Pool,
    PoolList,
    SubmitRequest,
    Task,
    TaskList,
)
from daybreak.wire import ErrorCode as Code

STORE = (Code.STORE_UNAVAILABLE,)
_TASK = (Code.BAD_HEADER, Code.NOT_FOUND, *STORE)
BODY = (Code.BAD_JSON, Code.BAD_HEADER, Code.UNSUPPORTED_MEDIA_TYPE, Code.TOO_LARGE, Code.INVALID_INPUT)
_SUBMIT = (*BODY, Code.NO_SUCH_POOL, Code.IDEMPOTENCY_MISMATCH, Code.QUEUE_FULL, *STORE)
_IDEMPOTENT = {
    "name": "Idempotency-Key",
    "in": "header",
    "description": "1 to 255 visible ASCII characters. A submit with the same key and body returns the first task. "
    + IDEMPOTENCY_KEY,
    "schema": {"type": "string", "maxLength": 255, "pattern": "^[\\x21-\\x7e]+$"},
}
_TRACE = [
    {
        "name": name,
        "in": "header",
        "description": "W3C Trace Context, stored with the task. A malformed value is ignored.",
        "schema": {"type": "string"},
    }
    for name in ("traceparent", "tracestate")
]


def route_spec(
    name: str,
    *codes: Code,
    ok: Mapping[int, tuple[str, type[BaseModel] | None]],
    body: type[BaseModel] | dict[str, Any] | None = None,
    media: dict[str, Any] | None = None,
    idempotent: bool = False,
) -> dict[str, Any]:
    """The arguments of a route's decorator, with the ``codes`` of its errors."""
    responses: dict[int | str, dict[str, Any]] = {}
    for status, (description, model) in ok.items():
        responses[status] = {"description": description}
        if model is not None:
            responses[status]["model"] = model
        elif media is not None:
            responses[status]["content"] = {kind: {"schema": schema} for kind, schema in media.items()}
    extra: dict[str, Any] = {"x-problems": sorted({code.value for code in codes})}
    if body is not None:
        schema = body if isinstance(body, dict) else {"$ref": f"#/components/schemas/{body.__name__}"}
        extra["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    if idempotent:
        extra["parameters"] = [_IDEMPOTENT, *_TRACE]
    return {
        "operation_id": name,
        "status_code": next(iter(ok)),
        "response_model": None,
        "responses": responses,
        "openapi_extra": extra,
    }


_ACCEPTED = {
    202: ("Accepted: the task is stored.", Task),
    200: ("The task that an earlier request with the same key and body created.", Task),
}
_BINARY = {"type": "string", "format": "binary"}

SUBMIT = route_spec("submit", *_SUBMIT, ok=_ACCEPTED, body=SubmitRequest, idempotent=True)
GENERATE = route_spec("generate", *_SUBMIT, ok=_ACCEPTED, body={"type": "object"}, idempotent=True)
BATCH = route_spec(
    "submit_batch",
    *BODY,
    ok={207: ("A result for each task, in order.", BatchResult)},
    body=BatchRequest,
    idempotent=True,
)
REPLAY = route_spec(
    "replay",
    *_TASK,
    Code.CONFLICT,
    Code.INVALID_INPUT,
    Code.IDEMPOTENCY_MISMATCH,
    Code.QUEUE_FULL,
    ok=_ACCEPTED,
    idempotent=True,
)
ESTIMATE = route_spec(
    "estimate",
    *BODY,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The estimate. Figures that are not known yet are absent.", Estimate)},
    body=SubmitRequest,
)
SHOW = route_spec("get_task", *_TASK, ok={200: ("The task.", Task)})
LIST = route_spec(
    "list_tasks",
    Code.BAD_HEADER,
    Code.BAD_CURSOR,
    Code.INVALID_INPUT,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("A page of tasks.", TaskList)},
)
CANCEL = route_spec(
    "cancel",
    *_TASK,
    ok={
        202: ("The task is cancelled, or will be at the end of a step.", Task),
        200: ("The task had already ended and is not changed.", Task),
    },
)
DELETE = route_spec(
    "delete_task", *_TASK, Code.CONFLICT, ok={204: ("The task is deleted, with its events and files.", None)}
)
ARTIFACT = route_spec(
    "get_artifact",
    *_TASK,
    Code.NO_SUCH_ARTIFACT,
    Code.BAD_RANGE,
    ok={
        200: ("The file.", None),
        206: ("The part of the file that `Range` names.", None),
        304: ("The ETag of the file is in `If-None-Match`.", None),
        307: ("A redirect to a temporary URL of the file.", None),
    },
    media={"application/octet-stream": _BINARY},
)
PREVIEW = route_spec(
    "get_preview",
    *_TASK,
    Code.NO_SUCH_ARTIFACT,
    ok={200: ("The image.", None)},
    media={"image/webp": _BINARY},
)
EVENTS = route_spec(
    "follow",
    *_TASK,
    Code.BAD_EVENT_ID,
    Code.NOT_ACCEPTABLE,
    Code.TOO_MANY_STREAMS,
    Code.SHUTTING_DOWN,
    ok={
        200: ("Events, up to the task's last one.", None),
        204: ("The task has ended and `after` is its last event, so nothing follows.", None),
    },
    media={"text/event-stream": {"type": "string"}},
)
LOGS = route_spec(
    "get_logs",
    *_TASK,
    Code.BAD_EVENT_ID,
    Code.INVALID_INPUT,
    Code.NOT_ACCEPTABLE,
    Code.TOO_MANY_STREAMS,
    Code.SHUTTING_DOWN,
    ok={
        200: (
            "A page of lines, or with `follow` a stream of `log` events and the task's last event.",
            EventList,
        ),
        204: ("With `follow`: the task has ended and `after` is its last event, so nothing follows.", None),
    },
)
POOLS = route_spec("list_pools", Code.BAD_HEADER, *STORE, ok={200: ("All pools.", PoolList)})
POOL = route_spec("get_pool", Code.BAD_HEADER, Code.NO_SUCH_POOL, *STORE, ok={200: ("The pool.", Pool)})
SERVE = route_spec(
    "serve",
    Code.BAD_HEADER,
    Code.CONFLICT,
    Code.NO_SUCH_POOL,
    Code.TOO_LARGE,
    Code.QUEUE_FULL,
    Code.NOT_READY,
    Code.GROUP_FAILED,
    Code.DEADLINE_PASSED,
    Code.SHUTTING_DOWN,
    ok={200: ("The answer of the group; it may have any status, type and headers.", None)},
    media={"*/*": {}},
)
_HEALTH = {"application/json": {"type": "object", "properties": {"status": {"type": "string"}}}}
HEALTH = route_spec("alive", ok={200: ("Alive.", None)}, media=_HEALTH)
READY = route_spec("ready", Code.SHUTTING_DOWN, *STORE, ok={200: ("Ready.", None)}, media=_HEALTH)
METRICS = route_spec("metrics", ok={200: ("Metrics.", None)}, media={"text/plain": {"type": "string"}})
