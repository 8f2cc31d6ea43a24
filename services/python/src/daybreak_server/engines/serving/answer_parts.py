"""Turns what a workload's ``serve`` returns into parts that can be sent: a head with the first bytes, then more bytes.

A workload is third-party code, so this module checks each part before it is sent to the client. The head
waits for the first bytes of the body. So if an error occurs before them, the client can still get a complete
error response, or the router can try another group.

An empty part sends no bytes. But after each part, the ranks agree whether to continue, and each part shows that the
work advances. So a workload can yield ``b""`` while it computes. Only the leader's answer is sent, so each part of a
follower's answer may be ``b""``.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from daybreak_server.domain.serving_headers import REFUSED_HEADER
from daybreak_server.domain.text import short_name, storable
from daybreak_server.workloads.base import PermanentError
from daybreak_server.workloads.serving import Request, RequestError, Response, ServingWorkload

PROBLEM_TYPE = "application/problem+json"
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_OWN_HEADERS = frozenset({"connection", "keep-alive", "transfer-encoding", "upgrade", REFUSED_HEADER})
"""Headers that are left out of a workload's answer, because the HTTP server and the engine set them. If a workload
could set ``daybreak-refused``, a gateway would think that the group had refused the request, and would send the
request to one group after another."""
_WITHOUT_BODY = (204, 304)
_CHUNKED_TYPE = ("content-type", "application/octet-stream")


@dataclass(frozen=True, slots=True)
class Head:
    """The status and headers of an answer."""

    status: int
    headers: tuple[tuple[bytes, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class AnswerPart:
    """Bytes of an answer's body. All parts up to the first one with bytes also have the head, which is sent once."""

    data: bytes
    head: Head | None = None


def parts_of(workload: ServingWorkload, request: Request) -> Iterator[AnswerPart]:
    """Run ``serve`` and yield its answer: one part for each part of the body, and at least one.

    A :class:`RequestError` before the first bytes becomes an answer. A later one is raised, as is any other error.

    :raises PermanentError: ``invalid_response`` if the workload returns something that cannot be sent.
    """
    try:
        answer: Any = workload.serve(request)
        response = (
            answer if isinstance(answer, Response) else Response(body=answer, headers=dict([_CHUNKED_TYPE]))
        )
        if isinstance(response.body, bytes | bytearray | memoryview):
            yield _whole(response, bytes(response.body))
            return
        body = iter(_iterable(response.body))
        if response.status in _WITHOUT_BODY:
            body = iter(())
    except RequestError as exc:
        yield _refused(exc)
        return
    try:
        yield from _stream(response, body)
    finally:
        close = getattr(body, "close", None)
        if close is not None:
            close()


def _stream(response: Response, body: Iterator[Any]) -> Iterator[AnswerPart]:
    head = _head(response.status, response.headers)
    parts = map(_bytes, body)
    empty = True
    try:
        for data in parts:
            empty = False
            yield AnswerPart(data, head)
            if data:
                break
    except RequestError as exc:
        yield _refused(exc)
        return
    if empty:
        yield AnswerPart(b"", head)
    for data in parts:
        yield AnswerPart(data)


def _whole(response: Response, body: bytes) -> AnswerPart:
    head = _head(response.status, response.headers)
    headers = [pair for pair in head.headers if pair[0] != b"content-length"]
    if head.status in _WITHOUT_BODY:
        return AnswerPart(b"", Head(head.status, tuple(headers)))
    return AnswerPart(body, Head(head.status, (*headers, (b"content-length", str(len(body)).encode()))))


def _refused(error: RequestError) -> AnswerPart:
    status = error.status if isinstance(error.status, int) and 400 <= error.status <= 599 else 500
    field = None if error.field is None else storable(error.field)
    body = problem(status, short_name(error.code), storable(error), field=field)
    headers = problem_headers(body)
    if error.retry_after_s is not None:
        headers += ((b"retry-after", str(max(1, math.ceil(error.retry_after_s))).encode()),)
    return AnswerPart(body, Head(status, headers))


def problem(status: int, code: str, detail: str, *, field: str | None = None) -> bytes:
    """The body of an error, as ``application/problem+json``. ``field``: the part of the request that is wrong."""
    shown: dict[str, Any] = {"status": status, "code": code, "detail": detail}
    if field is not None:
        shown["errors"] = [{"field": field, "message": detail}]
    return json.dumps(shown, separators=(",", ":")).encode()


def problem_headers(body: bytes) -> tuple[tuple[bytes, bytes], ...]:
    """The headers of an error with this body."""
    return ((b"content-type", PROBLEM_TYPE.encode()), (b"content-length", str(len(body)).encode()))


def _head(status: Any, headers: Any) -> Head:
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        _refuse(f"Response.status must be a number from 200 to 599, not {status!r}")
    if not isinstance(headers, Mapping):
        _refuse(f"Response.headers must map names to values, not {headers!r}")
    encoded = dict(_header(name, value) for name, value in headers.items())
    length = encoded.get(b"content-length", b"0")
    if not _LENGTH.fullmatch(length):
        _refuse(f"the header 'Content-Length' must be a number of bytes, not {length!r}")
    return Head(status, tuple(pair for pair in encoded.items() if pair[0].decode() not in _OWN_HEADERS))


def _header(name: Any, value: Any) -> tuple[bytes, bytes]:
    try:
        encoded = name.lower().encode("ascii"), value.strip().encode("latin-1")
    except (AttributeError, UnicodeError):
        _refuse(f"the header {name!r} must be ASCII, and its value must be text in Latin-1")
    if not _NAME.fullmatch(encoded[0]) or any(
        (byte < 32 and byte != 9) or byte == 127 for byte in encoded[1]
    ):
        _refuse(f"the header {name!r} has characters that HTTP does not allow")
    return encoded


def _iterable(body: Any) -> Iterable[Any]:
    if isinstance(body, str | Mapping) or not isinstance(body, Iterable):
        _refuse(f"serve must return a Response or an iterator of bytes, not a {type(body).__name__}")
    return body


def _bytes(data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        _refuse(f"a part of an answer must be bytes, not a {type(data).__name__}")
    return bytes(data)


def _refuse(message: str) -> NoReturn:
    raise PermanentError(message, code="invalid_response")
