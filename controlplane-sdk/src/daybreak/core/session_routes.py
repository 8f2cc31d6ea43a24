"""The routes of streaming sessions. Each function builds an :class:`ApiRequest` or a URL, and sends nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

from daybreak.core.effects import HttpRequest
from daybreak.core.replies import parse
from daybreak.core.retry import ApiRequest
from daybreak.core.routes import new_key, require_json
from daybreak.wire import Session, SessionList


def open_session(body: Mapping[str, Any], *, idempotency_key: str | None = None) -> ApiRequest[Session]:
    """``POST /v1/sessions``. A retry opens no second session, because the request has an ``Idempotency-Key``."""
    sent = {name: value for name, value in body.items() if value is not None}
    require_json(sent, "session")
    headers = {"Idempotency-Key": idempotency_key or new_key()}
    request = HttpRequest(method="POST", path="/v1/sessions", json=sent, headers=headers)
    return ApiRequest(request=request, read=lambda reply: parse(reply, Session))


def get(session: str) -> ApiRequest[Session]:
    """``GET /v1/sessions/{id}``."""
    return ApiRequest(
        request=HttpRequest(method="GET", path=_path(session)), read=lambda reply: parse(reply, Session)
    )


def list_sessions(pool: str | None) -> ApiRequest[tuple[Session, ...]]:
    """``GET /v1/sessions``."""
    params = {} if pool is None else {"pool": pool}
    request = HttpRequest(method="GET", path="/v1/sessions", params=params)
    return ApiRequest(request=request, read=lambda reply: tuple(parse(reply, SessionList).data))


def close(session: str) -> ApiRequest[Session]:
    """``DELETE /v1/sessions/{id}``. An ended session stays as it is, so the request may be repeated."""
    return ApiRequest(
        request=HttpRequest(method="DELETE", path=_path(session)), read=lambda reply: parse(reply, Session)
    )


def stream_url(server: str, session: str, **query: str | int) -> str:
    """The URL of a session's stream."""
    return f"{server.replace('http', 'ws', 1)}{_path(session)}/stream?{urlencode(query)}"


def _path(session: str) -> str:
    return f"/v1/sessions/{quote(session, safe='')}"
