"""A client that follows a task gets history and live events without a gap or a repeat."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import POOL, Api, FakeLeader, Serving, make_settings, parse, read_events
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.pools import GroupState
from daybreak_server.domain.tasks import Claim, EventDraft
from testkit.valkey import start_valkey
from testkit.waiting import wait_until


def socket(api: Api, task: str, query: str = "", **headers: str) -> ClientConnection:
    """A WebSocket that follows the task."""
    url = f"{api.url.replace('http', 'ws', 1)}/v1/tasks/{task}/ws{query}"
    return connect(url, additional_headers=headers, open_timeout=60)


def drain(connection: ClientConnection) -> tuple[list[dict[str, Any]], int]:
    """Return all remaining events of a WebSocket, and its close code."""
    events: list[dict[str, Any]] = []

    def read() -> None:
        while True:
            events.append(json.loads(connection.recv(timeout=60)))

    with connection, pytest.raises(ConnectionClosed) as closed:
        read()
    assert closed.value.rcvd is not None
    return events, closed.value.rcvd.code


def write(leader: FakeLeader, claim: Claim, count: int, batch: int = 50) -> None:
    """Write ``count`` log events."""
    for first in range(0, count, batch):
        drafts = [
            EventDraft(type="log", data={"level": "info", "message": str(n)})
            for n in range(first, min(first + batch, count))
        ]
        leader.queue.report(claim.lease, drafts)


def test_sse_and_websocket_send_the_same_objects(api: Api, leader: FakeLeader) -> None:
    """Each stream sends all events of an ended task and then ends. The WebSocket closes with 1000."""
    task = api.submit()
    claim = leader.claim()
    write(leader, claim, 3)
    leader.finish(claim)
    sse = read_events(api.url, task["id"])
    ws, code = drain(socket(api, task["id"]))
    assert sse == ws
    assert code == 1000
    assert [e["type"] for e in sse] == ["queued", "started", "log", "log", "log", "succeeded"]
    assert all(set(e) >= {"id", "task", "type", "at", "data"} for e in sse)


def test_a_stream_resumes_after_an_id(api: Api, leader: FakeLeader) -> None:
    """SSE continues after `Last-Event-ID` or `?after=`, a WebSocket after `?after=`.

    After the id of the task's last event, a stream is empty and ends.
    """
    task = api.submit()
    claim = leader.claim()
    write(leader, claim, 5)
    leader.finish(claim)
    all_events = read_events(api.url, task["id"])
    for cut in range(len(all_events)):
        rest = all_events[cut + 1 :]
        assert read_events(api.url, task["id"], after=all_events[cut]["id"]) == rest
        assert drain(socket(api, task["id"], f"?after={all_events[cut]['id']}")) == (rest, 1000)
    response = api.client.get(f"/v1/tasks/{task['id']}/events", params={"after": all_events[3]["id"]})
    assert list(parse(iter(response.text.split("\n")))) == all_events[4:]


def test_without_follow_a_stream_ends_after_the_stored_events(api: Api, leader: FakeLeader) -> None:
    """`?follow=false` ends the stream of a waiting or running task. The stream of an ended task ends anyway."""
    task = api.submit()
    path = f"/v1/tasks/{task['id']}/events"

    def stored() -> list[str]:
        text = api.client.get(path, params={"follow": "false"}).text
        return [event["type"] for event in parse(iter(text.split("\n"))) if "id" in event]

    assert stored() == ["queued"]
    claim = leader.claim()
    write(leader, claim, 300)
    assert stored() == ["queued", "started", *["log"] * 300]
    leader.finish(claim)
    assert stored()[-1] == "succeeded"


def test_live_events_arrive_as_they_happen(api: Api, leader: FakeLeader) -> None:
    """A subscriber that is connected from the start gets each event before the next is written."""
    task = api.submit()
    with httpx2.stream(
        "GET", f"{api.url}/v1/tasks/{task['id']}/events", timeout=60, verify=False
    ) as response:
        events = (event for event in parse(response.iter_lines()) if "id" in event)
        assert next(events)["type"] == "queued"
        claim = leader.claim()
        assert next(events)["type"] == "started"
        for step in range(1, 4):
            leader.progress(claim, step, 3)
            assert next(events)["data"]["step"] == step
        leader.finish(claim)
        assert next(events)["type"] == "succeeded"
        assert next(events, None) is None


def test_trimmed_history_begins_with_a_reset(api: Api, leader: FakeLeader) -> None:
    """A client that asks for trimmed events gets a `reset` with the task, and then the kept events in order."""
    task = api.submit()
    claim = leader.claim()
    write(leader, claim, 1500, batch=250)
    leader.finish(claim)
    events = read_events(api.url, task["id"])
    assert events[0]["type"] == "reset"
    assert "id" not in events[0]
    assert events[0]["data"]["task"]["id"] == task["id"]
    numbers = [int(e["data"]["message"]) for e in events if e["type"] == "log"]
    assert numbers == list(range(numbers[0], 1500))
    assert len(numbers) >= 900
    assert events[-1]["type"] == "succeeded"


def test_an_id_from_the_future_is_answered_with_a_reset(api: Api, leader: FakeLeader) -> None:
    """An id that this task never had (of another task, or of a lost event) does not make a client wait forever."""
    task = api.submit()
    claim = leader.claim()
    with httpx2.stream(
        "GET", f"{api.url}/v1/tasks/{task['id']}/events?after=9999999999999-0", timeout=60, verify=False
    ) as response:
        events = parse(response.iter_lines())
        assert next(events)["type"] == "reset"
        leader.finish(claim)
        assert [e["type"] for e in events] == ["succeeded"]
    again = read_events(api.url, task["id"], after="9999999999999-0")
    assert [e["type"] for e in again] == ["reset", "succeeded"]


def test_heartbeats_are_comments(start_api: Callable[..., Api]) -> None:
    """While nothing happens, a comment is sent every heartbeat_s."""
    api = start_api(http={"heartbeat_s": 0.1})
    task = api.submit(start_at="2026-12-31T00:00:00Z" if time.time() < 1798700000 else None)
    with httpx2.stream(
        "GET", f"{api.url}/v1/tasks/{task['id']}/events", timeout=60, verify=False
    ) as response:
        beats = (line for line in response.iter_lines() if line.startswith(":"))
        assert [next(beats) for _ in range(3)] == [": heartbeat"] * 3


def test_the_stream_of_a_waiting_task_has_its_position_and_wake(api: Api, leader: FakeLeader) -> None:
    """The events `position` and `wake` have no id. They come at once and at each change, until the task starts."""
    first, second = api.submit(), api.submit()
    with httpx2.stream(
        "GET", f"{api.url}/v1/tasks/{second['id']}/events", timeout=60, verify=False
    ) as response:
        events = parse(response.iter_lines())
        assert next(events)["type"] == "queued"
        first_two = [next(events), next(events)]
        assert [(e["type"], "id" in e) for e in first_two] == [("position", False), ("wake", False)]
        assert first_two[0]["data"]["position"] == 2
        assert first_two[1]["data"]["phase"] == "detect"
        api.client.post(f"/v1/tasks/{first['id']}/cancel")
        assert [(e["type"], e["data"]["position"]) for e in [next(events)]] == [("position", 1)]
        leader.group = replace(leader.group, state=GroupState.LOADING, phase="model")
        leader.register()
        wake = next(events)
        assert (wake["type"], wake["data"]["phase"]) == ("wake", "model")
        for phase in ("warm_up", "model"):
            leader.group = replace(leader.group, phase=phase)
            leader.register()
            wake = next(events)
            assert (wake["type"], wake["data"]["phase"]) == ("wake", phase)
        leader.group = replace(leader.group, state=GroupState.IDLE, phase="ready")
        leader.finish(leader.claim())
        assert [e["type"] for e in events] == ["started", "succeeded"]


def test_the_eta_covers_the_remaining_phases(api: Api, leader: FakeLeader) -> None:
    """The ETA assumes that each phase still to come takes as long as in the last wake."""
    last = {"ray": 20.0, "model": 6.0, "warm_up": 3.0}
    leader.group = replace(leader.group, state=GroupState.IDLE, phase="ready", wake=last)
    leader.register()

    def eta_s() -> Any:
        return api.client.get("/v1/pools/echo").json()["wake"].get("eta_s")

    assert wait_until(eta_s, 30, "the ETA of the pool") == 29.0
    leader.queue.deregister(leader.group)
    now_ms = time.time_ns() // 1_000_000
    leader.group = replace(leader.group, state=GroupState.LOADING, phase="warm_up", since_ms=now_ms, wake={})
    leader.register()
    task = api.submit()
    shown = wait_until(lambda: _wake(api, task["id"], "warm_up"), 30, "the phase warm_up")
    assert shown["eta_s"] <= 3.0


def _wake(api: Api, task: str, phase: str) -> dict[str, Any] | None:
    wake = api.client.get(f"/v1/tasks/{task}").json().get("wake", {})
    return wake if wake.get("phase") == phase else None


def test_the_number_of_streams_is_limited(start_api: Callable[..., Api]) -> None:
    """Beyond the limit, SSE gets 429 with Retry-After, and a WebSocket closes with 4429. A stream that closes frees
    its slot."""
    api = start_api(http={"max_streams": 2, "max_streams_per_tenant": 1})
    task = api.submit()
    other = api.submit(headers={"Daybreak-Tenant": "other"})
    third = api.submit(headers={"Daybreak-Tenant": "third"})
    path = f"/v1/tasks/{task['id']}/events"
    with socket(api, task["id"]) as first_stream:
        first_stream.recv(timeout=60)
        refused = api.client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (429, "too_many_streams")
        assert refused.json()["limit"] == "streams_per_tenant"
        assert int(refused.headers["retry-after"]) >= 1
        assert drain(socket(api, task["id"]))[1] == 4429
        with socket(api, other["id"], **{"Daybreak-Tenant": "other"}) as second_stream:
            second_stream.recv(timeout=60)
            full = api.client.get(f"/v1/tasks/{third['id']}/events", headers={"Daybreak-Tenant": "third"})
            assert (full.status_code, full.json()["limit"]) == (429, "streams")
    wait_until(lambda: _opens(api, path), 30, "the closed stream to free its slot")


def _opens(api: Api, path: str) -> bool:
    with api.client.stream("GET", path) as response:
        return response.status_code == 200


@pytest.mark.parametrize(
    ("task", "query", "code", "reason"),
    [
        ("echo_01AAAAAAAAAAAAAAAAAAAAAAAA", "", 4404, "not_found"),
        ("nonsense", "", 4404, "not_found"),
        (None, "?after=x", 4400, "bad_event_id"),
    ],
)
def test_a_websocket_closes_with_the_code_of_the_error(
    api: Api, task: str | None, query: str, code: int, reason: str
) -> None:
    """The reason in the close frame is Daybreak's error code, which an HTTP response has in its JSON."""
    with (
        socket(api, task or api.submit()["id"], query) as connection,
        pytest.raises(ConnectionClosed) as closed,
    ):
        connection.recv(timeout=60)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)


@pytest.mark.parametrize("path", ["/", "/v1/tasks", "/v1/nothing/here", "/docs"])
def test_a_websocket_to_an_unknown_path_is_404(api: Api, path: str, caplog: pytest.LogCaptureFixture) -> None:
    """The handshake gets 404 with a JSON problem, not the server's default of 403. No warning is logged."""
    with pytest.raises(InvalidStatus) as refused:
        connect(api.url.replace("http", "ws", 1) + path, open_timeout=60)
    response = refused.value.response
    assert (response.status_code, response.headers["content-type"]) == (404, "application/problem+json")
    assert response.body is not None
    assert json.loads(response.body)["code"] == "not_found"
    assert api.client.get("/health").status_code == 200
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_another_tenants_websocket_is_not_found(api: Api) -> None:
    """The WebSocket closes with 4404, or with 4400 if the name of the tenant is malformed."""
    task = api.submit()["id"]
    assert drain(socket(api, task, **{"Daybreak-Tenant": "two"})) == ([], 4404)
    assert drain(socket(api, task, **{"Daybreak-Tenant": "-"})) == ([], 4400)


def test_messages_of_a_websocket_client_are_ignored(api: Api, leader: FakeLeader) -> None:
    """The client still receives every event."""
    task = api.submit()
    with socket(api, task["id"]) as connection:
        for _ in range(20):
            connection.send("hello")
        leader.finish(leader.claim())
        events, code = drain(connection)
    assert (events[-1]["type"], code) == ("succeeded", 1000)


def test_the_reader_runs_only_while_there_is_a_subscriber(api: Api) -> None:
    """The server notices at once when a client disconnects in the middle of a stream."""
    feed = api.context.broadcaster.feed(POOL)
    task = api.submit()
    assert not feed.reading
    for _ in range(2):
        with httpx2.stream(
            "GET", f"{api.url}/v1/tasks/{task['id']}/events", timeout=60, verify=False
        ) as response:
            # This variable keeps the iterator: if it were deleted, the response would close.
            lines = response.iter_lines()
            next(lines)
            wait_until(lambda: feed.reading, 30, "the reader to start")
        wait_until(lambda: not feed.reading, 60, "the reader to stop")


def test_streams_survive_a_restart_of_the_store(tmp_path: Path) -> None:
    """A subscriber stays connected while Redis restarts, and misses nothing."""
    valkey = start_valkey(tmp_path / "valkey")
    queue = RedisQueue(valkey.url, pool=POOL)
    try:
        with Serving(valkey, tmp_path, 0, make_settings()) as api:
            leader = FakeLeader(queue, api.blobs, tmp_path)
            task = api.submit()
            with httpx2.stream(
                "GET", f"{api.url}/v1/tasks/{task['id']}/events", timeout=90, verify=False
            ) as response:
                events = (event for event in parse(response.iter_lines()) if "id" in event)
                claim = leader.claim()
                assert [next(events)["type"] for _ in range(2)] == ["queued", "started"]
                valkey.restart()
                write(leader, claim, 5)
                leader.finish(claim)
                rest = list(events)
            assert [e["data"].get("message") for e in rest[:-1]] == ["0", "1", "2", "3", "4"]
            assert rest[-1]["type"] == "succeeded"
            assert read_events(api.url, task["id"])[2:] == rest
    finally:
        queue.close()
        valkey.stop()


def test_streams_end_when_the_server_stops(start_api: Callable[..., Api]) -> None:
    """A stopping server ends its streams at once (a WebSocket with 1012), so nobody has to kill the server."""
    api = start_api()
    task = api.submit()
    with (
        httpx2.stream("GET", f"{api.url}/v1/tasks/{task['id']}/events", timeout=60, verify=False) as response,
        socket(api, task["id"]) as connection,
    ):
        lines = response.iter_lines()
        next(lines)
        connection.recv(timeout=60)
        began = time.monotonic()
        api.server.should_exit = True
        list(lines)
        api.thread.join(30)
        assert not api.thread.is_alive()
        assert time.monotonic() - began < 8  # well below the grace period of other responses
        assert drain(connection)[1] == 1012
