"""Both Python clients and the command return each line of a task's log once, in order, and count missing lines."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from daybreak import ArgumentError, AsyncClient, Client, LogLine, NotFoundError, Retry
from daybreak.cli.main import app
from daybreak.core.logs import LineReader
from daybreak.testing import LocalDaybreak
from daybreak.wire import Event

FAST = Retry(attempts=4, first_s=0.01, max_s=0.05)


def sync_logs(url: str, **options: Any) -> list[LogLine]:
    with Client(url, retry=FAST) as client:
        return list(client.logs("video_01", **options))


def async_logs(url: str, **options: Any) -> list[LogLine]:
    async def run() -> list[LogLine]:
        async with AsyncClient(url, retry=FAST) as client:
            return [line async for line in client.logs("video_01", **options)]

    return asyncio.run(run())


@pytest.fixture(params=[sync_logs, async_logs], ids=["sync", "async"])
def logs(request: pytest.FixtureRequest) -> Callable[..., list[LogLine]]:
    return request.param


def event(make: Any, number: int, *, attempt: int = 1, line: int | None = None) -> dict[str, Any]:
    data = {"level": "info", "message": f"line {number}"} | ({} if line is None else {"line": line})
    at = "2026-11-21T12:00:00.000Z"
    return {
        "id": f"{number}-0",
        "task": "video_01",
        "type": "log",
        "at": at,
        "attempt": attempt,
        "data": data,
    }


def sse(make: Any, shown: dict[str, Any]) -> bytes:
    return f"id: {shown['id']}\nevent: log\ndata: {json.dumps(shown)}\n\n".encode()


def test_all_pages_are_read(scripted: Any, make: Any, logs: Callable[..., list[LogLine]]) -> None:
    scripted.answers = [
        make.answer({"object": "list", "data": [event(make, 1, line=1)], "has_more": True, "next": "1-0"}),
        make.drop,
        make.answer({"object": "list", "data": [event(make, 2, line=2)], "has_more": False}),
    ]
    lines = logs(scripted.url)
    assert [(line.id, line.line, line.message, line.dropped) for line in lines] == [
        ("1-0", 1, "line 1", 0),
        ("2-0", 2, "line 2", 0),
    ]
    assert [seen.query.get("after") for seen in scripted.seen] == [None, "1-0", "1-0"]
    assert {seen.path for seen in scripted.seen} == {"/v1/tasks/video_01/logs"}


def test_following_survives_a_broken_connection(
    scripted: Any, make: Any, logs: Callable[..., list[LogLine]]
) -> None:
    """The stream continues after the last received line. A line that the server sends twice reaches the caller once."""
    first, second = (sse(make, event(make, n, line=n)) for n in (1, 2))
    scripted.answers = [
        make.stream(first, broken=True),
        make.stream(first, second, make.event("succeeded", "3-0")),
    ]
    assert [line.message for line in logs(scripted.url, follow=True)] == ["line 1", "line 2"]
    assert [seen.query for seen in scripted.seen] == [{"follow": "true"}] * 2
    assert [seen.headers.get("last-event-id") for seen in scripted.seen] == [None, "1-0"]


@pytest.mark.parametrize(
    ("from_start", "numbered", "dropped"),
    [
        (True, [(1, 1), (1, 2)], [0, 0]),
        (True, [(1, 5), (1, 6), (1, 9)], [4, 0, 2]),
        (True, [(1, 1), (2, 1), (2, 4)], [0, 0, 2]),
        (True, [(3, 3)], [2]),
        (False, [(1, 5), (1, 7)], [0, 1]),
        (True, [(1, None), (1, None)], [0, 0]),
    ],
    ids=[
        "none",
        "first and later",
        "each attempt begins at 1",
        "a later attempt",
        "after an event",
        "old server",
    ],
)
def test_missing_lines_are_counted(
    make: Any, from_start: bool, numbered: list[tuple[int, int | None]], dropped: list[int]
) -> None:
    reader = LineReader(from_start=from_start)
    events = [
        Event.model_validate(event(make, at, attempt=attempt, line=line))
        for at, (attempt, line) in enumerate(numbered, 1)
    ]
    lines = [reader.read(read) for read in events]
    assert [line.dropped for line in lines if line is not None] == dropped


def test_a_wrong_event_id_is_refused_before_any_request(
    scripted: Any, logs: Callable[..., list[LogLine]]
) -> None:
    with pytest.raises(ArgumentError, match="not an event id"):
        logs(scripted.url, after="yesterday")
    assert not scripted.seen


def test_the_command_shows_lines_and_what_is_missing(
    scripted: Any, make: Any, command: Callable[..., tuple[int, str, str]]
) -> None:
    data = [event(make, 1, line=1), event(make, 2, line=5)]
    scripted.answers = [make.answer({"object": "list", "data": data, "has_more": False})]
    code, out, err = command("tasks", "logs", "video_01")
    assert code == 0
    assert out.splitlines() == ["2026-11-21 12:00:00 info    line 1", "2026-11-21 12:00:00 info    line 2"]
    assert "3 lines are missing here" in err
    code, out, _ = command("tasks", "logs", "video_01", "--json")
    assert [json.loads(line)["dropped"] for line in out.splitlines()] == [0, 3]


def test_the_command_follows_to_the_end(
    scripted: Any, make: Any, command: Callable[..., tuple[int, str, str]]
) -> None:
    scripted.answers = [make.stream(sse(make, event(make, 1, line=1)), make.event("failed", "2-0", error={}))]
    code, out, _ = command("tasks", "logs", "-f", "video_01")
    assert (code, out) == (0, "2026-11-21 12:00:00 info    line 1\n")


def test_the_command_reports_a_task_that_does_not_exist(
    scripted: Any, make: Any, command: Callable[..., tuple[int, str, str]]
) -> None:
    scripted.answers = [make.problem(404, "not_found")]
    code, out, err = command("tasks", "logs", "video_01")
    assert code != 0
    assert not out
    assert "the detail" in err


def test_a_real_task_s_lines(daybreak: LocalDaybreak, tmp_path: Path) -> None:
    """A real server returns the lines while the task runs and after its end."""
    with Client(daybreak.url) as client:
        task = client.submit("echo", {"message": "hi", "steps": 3})
        followed = list(client.logs(task, follow=True))
        assert client.get(task).state.terminal, "following ends with the task"
        assert [line.message for line in followed] == ["said 'hi' in 3 steps"]
        assert list(client.logs(task)) == followed
        assert list(client.logs(task, after=followed[-1].id)) == []
        with pytest.raises(NotFoundError):
            list(client.logs("echo_01ARZ3NDEKTSV4RRFFQ69G5FAV"))
    done = CliRunner().invoke(app, ["--url", daybreak.url, "tasks", "logs", task.id])
    assert "said 'hi' in 3 steps" in done.stdout
