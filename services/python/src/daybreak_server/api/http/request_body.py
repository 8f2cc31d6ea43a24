"""Reads request bodies and headers. A body is a JSON object whose size is bounded, even after decompression."""

from __future__ import annotations

import json
import re
from typing import Any

from starlette.requests import HTTPConnection, Request

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import MAX_FIELD_CHARS, ApiError, invalid_field
from daybreak_server.api.http.decoding import decompress, parse_json
from daybreak_server.domain.tracing import TraceContext

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)
_TRACE_HEADERS = (b"traceparent", b"tracestate")
_VISIBLE = re.compile(r"[\x21-\x7e]{1,255}")


async def read_json(request: Request, *, max_bytes: int) -> dict[str, Any]:
    """The body as a JSON object.

    :raises ApiError: ``unsupported_media_type``, ``too_large``, ``bad_json`` or ``invalid_input``.
    """
    content_type = header(request, b"content-type") or ""
    if content_type != "application/json":
        content_type = content_type.partition(";")[0].strip().lower()
    if content_type != "application/json":
        raise not_json(content_type)
    raw = await read_bytes(request, max_bytes=max_bytes)
    plain = decompress(raw, header(request, b"content-encoding"), max_bytes=max_bytes)
    if plain is None:
        raise too_large(max_bytes)
    data = parse_json(plain)
    if not isinstance(data, dict):
        raise invalid_field("body", "The body must be a JSON object, such as {}.")
    return data


async def read_bytes(request: Request, *, max_bytes: int) -> bytes:
    """The body. It is refused as soon as it is too large, with or without a Content-Length.

    :raises ApiError: ``too_large``, or ``bad_json`` if the client's connection ended before the body did.
    """
    declared = header(request, b"content-length") or ""
    if declared.isdecimal() and len(declared) < 20 and int(declared) > max_bytes:
        raise too_large(max_bytes)
    chunks: list[bytes] = []
    size = 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ApiError(ErrorCode.BAD_JSON, "The request body was cut off. Send the request again.")
        chunk = message.get("body", b"")
        size += len(chunk)
        if size > max_bytes:
            raise too_large(max_bytes)
        if not message.get("more_body"):
            return b"".join((*chunks, chunk)) if chunks else bytes(chunk)
        chunks.append(chunk)


def header(request: Request, name: bytes) -> str | None:
    """A header's first value; ``name`` is lower case. Unlike a mapping of all headers, this copies only one value."""
    for found, value in request.scope["headers"]:
        if found == name:
            return str(value.decode("latin-1"))
    return None


def trace_context(request: HTTPConnection) -> TraceContext | None:
    """The trace that the request belongs to; ``None`` without valid trace headers."""
    headers = request.scope["headers"]
    for name, _ in headers:
        if name == b"traceparent":
            break
    else:
        return None
    found: dict[bytes, list[str]] = {}
    for name, value in headers:
        if name in _TRACE_HEADERS:
            found.setdefault(name, []).append(value.decode("latin-1"))
    parent, state = _TRACE_HEADERS
    return TraceContext.parse(found[parent], found.get(state, ()))


def not_json(content_type: str) -> ApiError:
    """The error for a body whose type is not JSON or is missing."""
    sent = f"is {content_type[:MAX_FIELD_CHARS]!r}, not application/json" if content_type else "is missing"
    return ApiError(
        ErrorCode.UNSUPPORTED_MEDIA_TYPE,
        f"The body's Content-Type {sent}. Send JSON with Content-Type: application/json.",
    )


def too_large(max_bytes: int) -> ApiError:
    """The error for a body that is too large. Because the rest is not read, the answer closes the connection."""
    return ApiError(
        ErrorCode.TOO_LARGE,
        f"The body is larger than the limit of {max_bytes:,} bytes, which also holds after decompression. Send less.",
        limit="body_bytes",
        headers={"Connection": "close"},
    )


def canonical(data: Any) -> str:
    """The canonical text of a JSON value, independent of whitespace and the order of keys.

    :raises ApiError: ``bad_json`` if a number overflows to infinity (``1e400``).
    """
    try:
        return _CANONICAL.encode(data)
    except ValueError as exc:
        raise ApiError(
            ErrorCode.BAD_JSON, "A number in the body is too large for a 64-bit float. Send a smaller one."
        ) from exc


def idempotency_key(request: Request) -> str | None:
    """The ``Idempotency-Key``, if there is one. :raises ApiError: ``bad_header`` if it is malformed."""
    key = header(request, b"idempotency-key")
    if key is not None and not _VISIBLE.fullmatch(key):
        raise ApiError(
            ErrorCode.BAD_HEADER,
            "The header Idempotency-Key is not valid. Send 1 to 255 visible ASCII characters without spaces.",
        )
    return key
