"""The OpenAPI description of the routes of sessions."""

from __future__ import annotations

from daybreak.wire import ErrorCode as Code
from daybreak.wire import OpenSessionRequest, Session, SessionList
from daybreak_server.api.task_api.openapi_specs import BODY, STORE, route_spec

ADMISSION = (Code.NO_SUCH_POOL, Code.SESSIONS_FULL, Code.TOO_MANY_STREAMS, *STORE)
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
