"""Headers and paths of the requests that a gateway passes on, and headers of the answers that it gets."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from starlette.types import Scope

from daybreak.wire.workers import WORKER_HEADER
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.ports.upstreams import UpstreamAnswer

REFUSED_HEADER = b"daybreak-refused"
"""The header of a refusal. Its value is the reason. The gateway may then try the request on another group or worker."""
BUSY = b"busy"
"""The reason of a group that is full. Such a group gets requests again after a pause.

There are other reasons. A group that takes no more requests gives ``draining``. A group gives ``other`` if the request
is for another group, which had this address before. A worker without a ready replica of the model gives ``starting``,
``failed`` or ``unknown``. After one of these reasons, the gateway sends no more requests to the group or the worker,
until a later view of the store says that this group or worker takes requests."""
BROKEN = b"broken"
"""The reason of a group that broke. The request may have begun to run.

With the reason ``draining``, the request may have begun to run only if the group's time to finish its requests was
over. With all other reasons, the request has not begun to run."""
BROKE_HEADER = b"daybreak-broke"
"""A header of the answer 502 that a worker sends if its engine broke before the engine answered."""
_REFUSING = frozenset({503, 404})
"""The statuses of refusals. A worker that does not run the model refuses with 404."""
GROUP_HEADER = b"daybreak-group"
"""In a request, the group for which the request is meant. In an answer, the group that answered."""
WORKER_ID_HEADER = WORKER_HEADER.lower().encode()
"""Like :data:`GROUP_HEADER`, but with a worker instead of a group, for requests to models."""
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
        b"daybreak-deadline-s",
        GROUP_HEADER,
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


def refusal_of(answer: UpstreamAnswer) -> bytes | None:
    """The reason if the group has refused the request; ``None`` if it has answered the request."""
    if answer.status not in _REFUSING:
        return None
    for name, value in answer.headers:
        if name == REFUSED_HEADER:
            return value
    return None


def is_broken_worker(answer: UpstreamAnswer) -> bool:
    """Whether this is the answer of a worker whose engine broke before the engine answered."""
    return answer.status == 502 and any(name == BROKE_HEADER for name, _ in answer.headers)
