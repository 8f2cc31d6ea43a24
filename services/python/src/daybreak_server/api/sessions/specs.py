"""The OpenAPI description of the routes of sessions."""

from __future__ import annotations

from typing import Any

from daybreak.wire import ErrorCode as Code
from daybreak.wire import OpenSessionRequest, Session, SessionList
from daybreak_server.api.task_api.openapi_specs import BODY, STORE, route_spec

ADMISSION = (Code.NO_SUCH_POOL, Code.SESSIONS_FULL, Code.TOO_MANY_STREAMS, Code.NOT_READY, *STORE)
"""The errors of routes that open a session."""
_ONE = (Code.BAD_HEADER, Code.NOT_FOUND, *STORE)

OPEN = route_spec(
    "open_session",
    *BODY,
    *ADMISSION,
    Code.IDEMPOTENCY_MISMATCH,
    ok={201: ("The session. Connect to its stream to send audio and to receive events.", Session)},
    body=OpenSessionRequest,
)
LIST = route_spec(
    "list_sessions",
    Code.BAD_HEADER,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The open sessions.", SessionList)},
)
GET = route_spec("get_session", *_ONE, ok={200: ("The session.", Session)})
CLOSE = route_spec("close_session", *_ONE, ok={200: ("The session, which has ended.", Session)})

_ANSWER: dict[str, Any] = {"application/json": {}}
_TEXT: dict[str, Any] = {"type": "string"}


def _object(required: list[str], **properties: Any) -> dict[str, Any]:
    return {"type": "object", "required": required, "properties": properties}


INIT = route_spec(
    "init",
    *BODY,
    *ADMISSION,
    ok={200: ("The id of the session.", None)},
    body=_object(
        ["language_pair"],
        agent_type={"enum": ["InfiniSST"]},
        language_pair=_TEXT,
        client_id=_TEXT,
        latency_multiplier={"type": "integer", "minimum": 1, "maximum": 8, "default": 2},
        evaluation_mode={"type": "boolean"},
        pool=_TEXT,
    ),
    media=_ANSWER,
)
QUEUE_STATUS = route_spec("queue_status", *_ONE, ok={200: ("The state of the session.", None)}, media=_ANSWER)
LOAD_MODEL = route_spec(
    "load_model",
    *BODY,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The state of the model's pool.", None)},
    body=_object(["gpu_id", "language_pair"], gpu_id={"type": "integer"}, language_pair=_TEXT, pool=_TEXT),
    media=_ANSWER,
)
TRANSLATE = route_spec(
    "translate",
    *BODY,
    *ADMISSION,
    Code.INVALID_AUDIO,
    Code.CONFLICT,
    Code.DEADLINE_PASSED,
    ok={200: ("The text that the audio adds.", None)},
    body=_object(
        ["user_id", "language_pair"],
        user_id=_TEXT,
        language_pair=_TEXT,
        audio_data={"type": "array", "items": {"type": "number"}},
        is_final={"type": "boolean"},
        max_new_tokens={"type": "integer", "minimum": 1},
        pool=_TEXT,
    ),
    media=_ANSWER,
)


def session_only(name: str, *codes: Code) -> dict[str, Any]:
    """The description of a request whose body is only the id of a session."""
    return route_spec(
        name,
        *BODY,
        *_ONE,
        *codes,
        ok={200: ("The session.", None)},
        body=_object(["session_id"], session_id=_TEXT),
        media=_ANSWER,
    )


DELETE_SESSION = session_only("delete_session")
RESET_TRANSLATION = session_only("reset_translation", *ADMISSION)
PING = session_only("ping", Code.CONFLICT)


def user_session(name: str) -> dict[str, Any]:
    """The description of a request about the session that a user has for a pair of languages."""
    return route_spec(
        name, *_ONE, Code.NO_SUCH_POOL, Code.INVALID_INPUT, ok={200: ("The session.", None)}, media=_ANSWER
    )


def recording(name: str) -> dict[str, Any]:
    """The description of a request for the text of a recording."""
    spec = route_spec(
        name,
        Code.BAD_HEADER,
        Code.MODEL_NOT_FOUND,
        Code.UNSUPPORTED_MEDIA_TYPE,
        Code.TOO_LARGE,
        Code.INVALID_INPUT,
        Code.INVALID_AUDIO,
        Code.SESSIONS_FULL,
        Code.TOO_MANY_STREAMS,
        Code.QUEUE_FULL,
        Code.NOT_READY,
        Code.GROUP_FAILED,
        Code.DEADLINE_PASSED,
        Code.SHUTTING_DOWN,
        *STORE,
        ok={200: ("The text.", None)},
        media=_ANSWER,
    )
    schema = _object(
        ["file", "model"],
        file={"type": "string", "format": "binary"},
        model=_TEXT,
        language=_TEXT,
        target_language=_TEXT,
        response_format={"enum": ["json", "text", "verbose_json", "srt", "vtt"], "default": "json"},
        stream={"type": "boolean", "default": False},
        sample_rate={"type": "integer"},
    )
    content = {"multipart/form-data": {"schema": schema}}
    spec["openapi_extra"]["requestBody"] = {"required": True, "content": content}
    return spec


RAY_STATS = route_spec(
    "ray_stats",
    Code.BAD_HEADER,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The sessions, groups and batching of the pool.", None)},
    media=_ANSWER,
)
STATS = route_spec(
    "scheduler_stats",
    Code.BAD_HEADER,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The queues.", None)},
    media=_ANSWER,
)
CONFIGURE = route_spec(
    "ray_configure",
    *BODY,
    Code.FORBIDDEN,
    Code.NO_SUCH_POOL,
    *STORE,
    ok={200: ("The current values.", None)},
    body={"type": "object"},
    media=_ANSWER,
)
