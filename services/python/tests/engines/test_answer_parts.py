"""Each part of a workload's answer is checked before the part is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from daybreak_server.engines.serving.answer_parts import AnswerPart, parts_of
from daybreak_server.workloads.base import Group, PermanentError
from daybreak_server.workloads.serving import Request, RequestError, Response

REQUEST = Request(method="GET", path="/")


class Returns:
    """A workload that returns ``answer``. If ``answer`` is an exception, the workload raises it."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def load(self, group: Group) -> None:
        pass

    def warm_up(self) -> None:
        pass

    def serve(self, _request: Request) -> Any:
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer


def parts(answer: Any) -> list[AnswerPart]:
    return list(parts_of(Returns(answer), REQUEST))


def headers(part: AnswerPart) -> dict[bytes, bytes]:
    assert part.head is not None
    return dict(part.head.headers)


def test_a_body_of_bytes_is_one_part_with_its_length() -> None:
    (part,) = parts(Response(status=201, headers={"X-Own": " a\tb "}, body=b"12345"))
    assert part.data == b"12345"
    assert headers(part) == {b"x-own": b"a\tb", b"content-length": b"5"}


def test_a_wrong_length_and_headers_of_the_connection_are_dropped() -> None:
    wrong = {"Content-Length": "99", "Transfer-Encoding": "chunked", "Connection": "upgrade"}
    (part,) = parts(Response(headers=wrong, body=b"1"))
    assert headers(part) == {b"content-length": b"1"}


@pytest.mark.parametrize("body", [b"text", [b"text"], b""])
@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_a_body_has_none(status: int, body: Any) -> None:
    (part,) = parts(Response(status=status, body=body))
    assert part.data == b""
    assert b"content-length" not in headers(part)


def test_empty_parts_are_kept_and_every_part_has_the_head_until_one_has_bytes() -> None:
    found = parts(iter([b"", b"a", b"", bytearray(b"b")]))
    assert [part.data for part in found] == [b"", b"a", b"", b"b"]
    assert headers(found[0]) == headers(found[1]) == {b"content-type": b"application/octet-stream"}
    assert found[2:] == [AnswerPart(b""), AnswerPart(b"b")]


@pytest.mark.parametrize("body", [[], [b""]])
def test_an_empty_stream_is_an_empty_answer(body: list[bytes]) -> None:
    (part,) = parts(iter(body))
    assert part.data == b""
    assert part.head is not None


def test_a_workload_cannot_say_that_its_request_was_not_run() -> None:
    """The header ``Daybreak-Refused`` is dropped. If it were sent, gateways would retry on one group after another."""
    (part,) = parts(Response(status=503, headers={"Daybreak-Refused": "busy"}, body=b"1"))
    assert headers(part) == {b"content-length": b"1"}


def test_a_header_is_sent_once_whatever_its_case() -> None:
    (part,) = parts(Response(headers={"Content-Length": "1", "content-length": "2"}, body=iter([b"ab"])))
    assert part.head is not None
    assert part.head.headers == ((b"content-length", b"2"),)


def test_the_iterator_is_closed_when_the_answer_is_not_wanted_any_more() -> None:
    closed = []

    def body() -> Iterator[bytes]:
        try:
            yield b"1"
            yield b"2"
        finally:
            closed.append(True)

    answer = parts_of(Returns(body()), REQUEST)
    next(answer)
    answer.close()  # type: ignore[attr-defined]
    assert closed == [True]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "NoneType"),
        ("text", "str"),
        ({"a": 1}, "dict"),
        (Response(body="text"), "str"),  # type: ignore[arg-type]
        (iter(["text"]), "a part of an answer must be bytes"),
        (Response(status=99), "from 200 to 599"),
        (Response(status=100), "from 200 to 599"),
        (Response(status=True), "from 200 to 599"),
        (Response(status="200"), "from 200 to 599"),  # type: ignore[arg-type]
        (Response(headers={"a": "1\r\nb: 2"}), "characters that HTTP does not allow"),
        (Response(headers={"a\r\nb": "1"}), "characters that HTTP does not allow"),
        (Response(headers={"": "1"}), "characters that HTTP does not allow"),
        (Response(headers={"a": "€"}), "Latin-1"),
        (Response(headers={"content-length": "ten"}, body=iter([b"x" * 10])), "a number of bytes"),
        (Response(headers={"a": 1}), "Latin-1"),  # type: ignore[dict-item]
        (Response(headers=[("a", "b")]), "Response.headers"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_sent_is_an_error_that_says_why(answer: Any, message: str) -> None:
    with pytest.raises(PermanentError, match=message) as caught:
        parts(answer)
    assert caught.value.code == "invalid_response"


def test_a_refused_request_is_an_answer() -> None:
    (part,) = parts(RequestError(429, "too much", code="slow_down"))
    assert part.data == b'{"status":429,"code":"slow_down","detail":"too much"}'
    assert part.head is not None
    assert part.head.status == 429


def test_a_request_error_with_a_status_that_is_no_error_is_a_500() -> None:
    (part,) = parts(RequestError(200, "odd"))
    assert part.head is not None
    assert part.head.status == 500
