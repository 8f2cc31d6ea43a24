"""Headers and paths of the requests that a gateway passes on, and headers of the answers that it gets."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from daybreak.wire.workers import WORKER_HEADER
from daybreak_server.domain.serving_headers import BROKE_HEADER, DEADLINE_HEADER, GROUP_HEADER, REFUSED_HEADER
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.ports.upstreams import UpstreamAnswer

_REFUSED, _BROKE = REFUSED_HEADER.encode(), BROKE_HEADER.encode()
_REFUSING = frozenset({503, 404})
"""The statuses of refusals. A worker that does not run the model refuses with 404."""
GROUP_ID_HEADER = GROUP_HEADER.encode()
WORKER_ID_HEADER = WORKER_HEADER.lower().encode()
"""Like :data:`GROUP_ID_HEADER`, but with a worker instead of a group, for requests to models."""
_NOT_FORWARDED = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"host",
        b"content-length",
        b"expect",
        b"x-request-id",
        DEADLINE_HEADER.encode(),
        GROUP_ID_HEADER,
        WORKER_ID_HEADER,
        b"daybreak-tenant",
    }
)
_TRACE_HEADERS = frozenset({b"traceparent", b"tracestate"})
SET_BY_GATEWAY = frozenset({b"date", b"x-request-id"})
"""Headers that the gateway itself sets in answers."""
Header = tuple[bytes, bytes]


def forwarded_headers(headers: list[Header], *, request_id: str | None) -> list[Header]:
    """The headers that the group gets with a request. Their names are in lower case, as ASGI has them."""
    passed, named = [], set[bytes]()
    for header in headers:
        if header[0] not in _NOT_FORWARDED:
            passed.append(header)
        elif header[0] == b"connection":
            named.update(token.strip().lower() for token in header[1].split(b","))
    if named:
        passed = [header for header in passed if header[0] not in named]
    if request_id is not None:
        passed.append((b"x-request-id", request_id.encode("latin-1")))
    return passed


def trace_headers(headers: list[Header], context: TraceContext | None) -> list[Header]:
    """The headers with this trace context in place of the caller's. Without a context, the headers are unchanged."""
    if context is None:
        return headers
    found = [header for header in headers if header[0] not in _TRACE_HEADERS]
    found.append((b"traceparent", context.traceparent.encode()))
    if context.tracestate:
        found.append((b"tracestate", context.tracestate.encode()))
    return found


def path_and_query(scope: Scope) -> bytes:
    """The path of a request, percent-encoded by the gateway, and its query as the client sent it."""
    query: bytes = scope["query_string"]
    path: bytes = quote(scope["path"], safe="/:@!$&'()*+,;=~-._").encode()
    return path + (b"?" + query if query else b"")


def target_of(scope: Scope, pool: str) -> bytes:
    """The path and query below the pool's route, percent-encoded as the client sent them."""
    query: bytes = scope["query_string"]
    raw: bytes = scope.get("raw_path") or b""
    _, found, path = raw.partition(b"/v1/pools/" + pool.encode() + b"/serve/")
    if not found:  # the name of the pool is encoded in an unusual way
        decoded: Any = scope["path"].partition("/serve/")[2]
        path = quote(decoded, safe="/:@!$&'()*+,;=~-._").encode()
    return b"/" + path + (b"?" + query if query else b"")


def refusal_of(answer: UpstreamAnswer) -> str | None:
    """The reason (a ``Refusal``) if the group has refused the request; ``None`` if it has answered the request."""
    if answer.status not in _REFUSING:
        return None
    for name, value in answer.headers:
        if name == _REFUSED:
            return value.decode("latin-1")
    return None


def is_broken_worker(answer: UpstreamAnswer) -> bool:
    """Whether this is the answer of a worker whose engine broke before the engine answered."""
    return answer.status == 502 and any(name == _BROKE for name, _ in answer.headers)
