"""The core, which does no I/O: parsing, errors, retries and event ids."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from daybreak import errors
from daybreak.core import routes
from daybreak.core.effects import Reply
from daybreak.core.follow import parse_event_id, read_event
from daybreak.core.replies import parse, raise_for_status, retry_after
from daybreak.core.retry import Retry
from daybreak.core.sse import SseMessage, SseParser
from daybreak.wire import ErrorCode, Problem, Task
from daybreak.wire.errors import MEDIA_TYPE

STREAM = (
    '\ufeff: hello\n\nid: 1-0\nevent: progress\ndata: {"a":\ndata: 1}\r\n\r\n'
    "data: zwölf\r\rid: 2-0\ndata:x\n\n"
)
MESSAGES = [
    SseMessage("progress", '{"a":\n1}', "1-0"),
    SseMessage("message", "zwölf", None),
    SseMessage("message", "x", "2-0"),
]


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=12))
def test_sse_parsing_does_not_depend_on_chunk_boundaries(cuts: list[int]) -> None:
    """A chunk may end inside a character or between the two characters of a line end."""
    raw = STREAM.encode()
    edges = [0, *sorted(cuts), len(raw)]
    parser = SseParser()
    found = [m for a, b in pairwise(edges) for m in parser.feed(raw[a:b])]
    assert found == MESSAGES


def test_an_sse_event_that_is_too_large_is_rejected() -> None:
    """A server that never ends an event cannot fill the client's memory."""
    for chunk in (b"data: " + b"x" * 2000, b"data: x\n" * 300, b"data: " + b"x" * 2000 + b"\n\n"):
        with pytest.raises(errors.ProtocolError, match="larger than 1000"):
            SseParser(max_event_characters=1000).feed(chunk)


def test_event_ids_sort_as_numbers() -> None:
    """9-0 comes before 10-0, and 5-9 before 5-10."""
    assert parse_event_id("9-0") < parse_event_id("10-0")
    assert parse_event_id("5-9") < parse_event_id("5-10")
    with pytest.raises(errors.ProtocolError):
        parse_event_id("yesterday")


def test_unknown_event_types_are_skipped() -> None:
    """A newer server may send types that this version does not know."""
    assert read_event(SseMessage("confetti", "{}", "1-0")) is None


@pytest.mark.parametrize(
    ("name", "given"),
    [("input", {"input": "hi"}), ("start_at", {"start_at": "tomorrow"}), ("metadata", {"metadata": "a=b"})],
)
def test_an_argument_of_the_wrong_type_raises_an_error_that_names_it(
    name: str, given: dict[str, Any]
) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a .*, not str$"):
        routes.submit_body("echo", **({"input": {}} | given))


@pytest.mark.parametrize("value", [{1}, b"x", datetime(2026, 1, 1, tzinfo=UTC), 1j, object()])
def test_a_value_that_json_cannot_represent_raises_an_error_that_says_where_it_is(value: object) -> None:
    with pytest.raises(
        errors.ArgumentError, match=rf"^input\.shots\[1\] is of type {type(value).__name__}, "
    ):
        routes.submit_body("echo", {"shots": ["a", value]})


def test_only_a_failed_task_reports_its_error(make: Any) -> None:
    """An expired task may carry the error of an earlier attempt, but the deadline ended the task."""
    error = {"code": "echo_failed", "message": "as asked"}
    expired = Task.model_validate(make.task("echo_01", state="expired", error=error))
    failed = Task.model_validate(make.task("echo_01", state="failed", error=error))
    assert str(errors.TaskExpiredError(expired)) == "echo_01 expired"
    assert str(errors.TaskFailedError(failed)) == "echo_01 failed: as asked (echo_failed)"


@pytest.mark.parametrize("code", list(ErrorCode))
def test_every_code_has_its_error(code: ErrorCode) -> None:
    """Each error code raises the class that the docstring of `daybreak.errors` promises."""
    kinds = {
        401: errors.AuthError,
        403: errors.AuthError,
        404: errors.NotFoundError,
        409: errors.ConflictError,
        422: errors.InvalidInputError,
        429: errors.QuotaError,
        500: errors.ServerError,
        502: errors.UnavailableError,
        503: errors.UnavailableError,
        504: errors.UnavailableError,
    }
    expected = kinds.get(code.status, errors.BadRequestError)
    if code is ErrorCode.IDEMPOTENCY_MISMATCH:
        expected = errors.ConflictError
    problem = Problem(type="t", title=code.title, status=code.status, code=code, detail="d")
    reply = Reply(
        status=code.status, headers={"content-type": MEDIA_TYPE}, body=problem.model_dump_json().encode()
    )
    with pytest.raises(errors.ApiError) as caught:
        raise_for_status(reply)
    assert type(caught.value) is expected
    assert caught.value.code == code


def test_responses_of_other_servers_are_recognised() -> None:
    """A page of a proxy or a response of another program is not mistaken for one of Daybreak's."""
    page = Reply(status=502, headers={"content-type": "text/html"}, body=b"<h1>Bad gateway</h1>")
    with pytest.raises(errors.UnavailableError, match="Bad gateway"):
        raise_for_status(page)
    with pytest.raises(errors.ProtocolError, match="not a Task"):
        parse(Reply(status=200, headers={}, body=b"<h1>It works!</h1>"), Task)
    with pytest.raises(errors.ProtocolError, match="redirect to https://x"):
        raise_for_status(Reply(status=302, headers={"location": "https://x"}))


def test_retry_after_may_be_a_number_or_a_date() -> None:
    """Both forms of the header are read; anything else is ignored."""
    now = datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert retry_after("3") == 3
    assert retry_after("Sat, 21 Nov 2026 12:00:30 GMT", now=now) == 30
    assert retry_after("soon") is None
    assert retry_after(None) is None


def test_delays_grow_to_a_limit_and_respect_retry_after() -> None:
    """Backoff doubles up to its limit, jitter removes at most half, and a delay is at least Retry-After."""
    retry = Retry(first_s=1, max_s=8)
    lost = errors.TransportError("x")
    assert [retry.delay(n, lost, draw=lambda: 1.0) for n in (1, 2, 3, 4, 9)] == [1, 2, 4, 8, 8]
    assert retry.delay(3, lost, draw=lambda: 0.0) == 2
    problem = Problem(type="t", title="t", status=503, code="queue_full", detail="d")
    error_with_retry_after = errors.UnavailableError(problem, retry_after_s=30)
    assert 30 <= retry.delay(1, error_with_retry_after) <= 30.5
    assert not Retry(max_retry_after_s=10).should_retry(error_with_retry_after)
    assert not retry.should_retry(errors.ProtocolError("x"))


def test_paths_are_quoted() -> None:
    """An id that a user has typed cannot reach another route."""
    assert routes.task_path("../pools") == "/v1/tasks/..%2Fpools"
    assert routes.task_path("a b", "artifacts", "x/y.mp4") == "/v1/tasks/a%20b/artifacts/x%2Fy.mp4"


def test_a_submit_omits_absent_fields_and_needs_a_time_zone() -> None:
    """The server applies its own defaults. The client rejects a time without a time zone."""
    body = routes.submit_body(
        "video", {"prompt": "x"}, start_at=datetime(2026, 1, 1, tzinfo=UTC), priority="high"
    )
    assert body == {
        "pool": "video",
        "input": {"prompt": "x"},
        "priority": "high",
        "start_at": "2026-01-01T00:00:00.000Z",
    }
    with pytest.raises(ValueError, match="zone"):
        routes.submit_body("video", {}, start_at=datetime(2026, 1, 1))
    later = routes.submit_body(
        "video", {}, start_at=datetime(2026, 1, 1, tzinfo=UTC).astimezone() + timedelta(0)
    )
    assert later["start_at"] == "2026-01-01T00:00:00.000Z"


def test_the_docstring_draws_the_error_tree() -> None:
    """The docstring of `daybreak.errors` draws exactly the existing classes, each below its parent."""
    text = errors.__doc__ or ""
    drawn: list[tuple[str, str]] = []
    stack: list[tuple[int, str]] = []
    for line in text.splitlines():
        if "``" not in line or not line.lstrip(" │├└─").startswith("``"):
            continue
        depth, name = line.index("``"), line.split("``")[1]
        while stack and stack[-1][0] >= depth:
            stack.pop()
        if stack:
            drawn.append((name, stack[-1][1]))
        stack.append((depth, name))
    classes = [
        c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, errors.DaybreakError)
    ]
    real = [(c.__name__, c.__bases__[0].__name__) for c in classes if c is not errors.DaybreakError]
    assert sorted(drawn) == sorted(real)
