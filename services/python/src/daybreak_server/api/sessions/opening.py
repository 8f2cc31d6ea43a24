"""The traces of the requests and connections that open sessions.

If a session belongs to a trace, responses about the session have this trace in the header ``traceparent``, even if an
earlier request opened the session.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from starlette.requests import HTTPConnection
from starlette.responses import Response

from daybreak.wire import ErrorCode
from daybreak_server.api.dependencies import Dependencies
from daybreak_server.api.errors import to_api_error
from daybreak_server.api.http.request_body import trace_context
from daybreak_server.domain.sessions import SessionRecord
from daybreak_server.ports.session_tracing import OpeningTrace


def begin(ctx: Dependencies, connection: HTTPConnection) -> OpeningTrace:
    """Begin the trace of a request or a WebSocket. The caller of this function must end the trace."""
    scope = connection.scope
    path: str = scope["path"]
    return ctx.services.tracing.opening(
        trace_context(connection),
        method=scope.get("method", "GET"),
        route=str(getattr(scope.get("route"), "path", path)),
        scheme=scope["scheme"],
        path=path,
    )


@contextmanager
def traced(ctx: Dependencies, request: HTTPConnection, *, status: int = 200) -> Iterator[OpeningTrace]:
    """Trace a request until the block ends. ``status``: the status of the response, if the block raises no error."""
    trace = begin(ctx, request)
    try:
        yield trace
    except Exception as exc:
        error = to_api_error(exc, request.scope["path"])
        if error is None:
            trace.ended(status=ErrorCode.INTERNAL.status, error=ErrorCode.INTERNAL.value)
            raise
        trace.ended(status=error.status, error=error.code.value)
        if trace.context is not None:
            error.headers["traceparent"] = trace.context.traceparent
        if error is exc:
            raise
        raise error from exc
    except BaseException as exc:  # the client has gone
        trace.ended(error=type(exc).__name__)
        raise
    trace.ended(status=status)


def headers(record: SessionRecord) -> dict[str, str]:
    """The header with the session's trace, or no header if the session belongs to no trace."""
    context = record.session.trace_context
    return {} if context is None else {"traceparent": context.traceparent}


def with_trace(response: Response, record: SessionRecord) -> Response:
    """The response, with the header ``traceparent`` of the session."""
    for name, value in headers(record).items():
        response.headers[name] = value
    return response
