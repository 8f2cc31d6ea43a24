"""``GET /v1/tasks/{id}/logs``: the lines of a task, in pages and as a stream, for its owner only."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from api_support import Api, FakeLeader, parse

from daybreak_server.domain.tasks import EventDraft
from testkit.waiting import wait_until


def say(leader: FakeLeader, claim: Any, *numbers: int) -> None:
    """Write lines with these numbers, and progress between them."""
    drafts = []
    for number in numbers:
        data = {"level": "info", "message": f"line {number}", "line": number}
        drafts.append(EventDraft(type="log", data=data))
        drafts.append(EventDraft(type="progress", data={"phase": "work", "fraction": 0.5}))
    leader.queue.report(claim.lease, drafts)


def page(api: Api, task: str, status: int = 200, **query: Any) -> Any:
    headers = query.pop("headers", {})
    response = api.client.get(f"/v1/tasks/{task}/logs", params=query, headers=headers)
    assert response.status_code == status, response.text
    return response.json()


def numbers(shown: Any) -> list[int]:
    return [event["data"]["line"] for event in shown["data"]]


class Follower:
    """Reads the stream of a task's lines on a thread."""

    def __init__(self, api: Api, task: str, **headers: str) -> None:
        self._url, self._headers = f"{api.url}/v1/tasks/{task}/logs?follow=true", headers
        self.events: list[dict[str, Any]] = []
        self.text = ""
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        with httpx2.stream("GET", self._url, headers=self._headers, timeout=60, verify=False) as response:
            assert response.status_code == 200
            for event in parse(self._lines(response)):
                self.events.append(event)

    def _lines(self, response: Any) -> Any:
        for line in response.iter_lines():
            self.text += line + "\n"
            yield line

    def wait(self) -> list[str]:
        """Wait for the end of the stream. :returns: the message of each line, and the type of each other event."""
        self._thread.join(60)
        assert not self._thread.is_alive()
        return [event["data"].get("message", event["type"]) for event in self.events]


def test_the_lines_of_a_task_come_in_pages(api: Api, leader: FakeLeader) -> None:
    """A page has only lines and no other events. The oldest line comes first, and each line has its attempt.

    The next page continues after the last line.
    """
    task = api.submit()["id"]
    assert page(api, task) == {"object": "list", "data": [], "has_more": False}
    claim = leader.claim()
    say(leader, claim, *range(1, 8))
    first = page(api, task, limit=3)
    assert (numbers(first), first["has_more"], first["next"]) == ([1, 2, 3], True, first["data"][-1]["id"])
    line = first["data"][0]
    assert (line["task"], line["type"], line["attempt"]) == (task, "log", 1)
    assert line["data"] == {"level": "info", "message": "line 1", "line": 1}
    second = page(api, task, limit=4, after=first["next"])
    assert (numbers(second), second["has_more"]) == ([4, 5, 6, 7], False)
    assert "next" not in second
    leader.finish(claim)
    assert numbers(page(api, task)) == list(range(1, 8)), "an ended task keeps its lines"


def test_a_stream_has_the_stored_lines_then_live_ones_then_the_end(api: Api, leader: FakeLeader) -> None:
    task = api.submit()["id"]
    claim = leader.claim()
    say(leader, claim, 1, 2)
    follower = Follower(api, task)
    wait_until(lambda: len(follower.events) == 2, 30, "the stored lines")
    say(leader, claim, 3)
    wait_until(lambda: len(follower.events) == 3, 30, "the live line")
    leader.finish(claim)
    assert follower.wait() == ["line 1", "line 2", "line 3", "succeeded"]


def test_a_stream_continues_after_the_last_line(api: Api, leader: FakeLeader) -> None:
    """After the task's last event there is nothing to follow, so the response is 204."""
    task = api.submit()["id"]
    claim = leader.claim()
    say(leader, claim, 1, 2)
    last = page(api, task, limit=1)["next"]
    leader.finish(claim)
    follower = Follower(api, task, **{"Last-Event-ID": last})
    assert follower.wait() == ["line 2", "succeeded"]
    end = follower.events[-1]["id"]
    response = api.client.get(f"/v1/tasks/{task}/logs?follow=true&after={end}")
    assert response.status_code == 204


def test_a_stream_without_lines_still_has_heartbeats(
    start_api: Callable[..., Api], leader: FakeLeader
) -> None:
    """The stream of a task that reports progress but logs nothing must not look like a dead connection."""
    api = start_api(http={"heartbeat_s": 0.2})
    task = api.submit()["id"]
    claim = leader.claim()
    follower = Follower(api, task)
    step = 0

    def heartbeats() -> bool:
        nonlocal step
        step += 1
        leader.progress(claim, step, 1_000_000)
        return follower.text.count(": heartbeat") >= 2

    wait_until(heartbeats, 30, "two heartbeats")
    leader.finish(claim)
    assert follower.wait() == ["succeeded"]


def test_only_the_owner_of_a_task_reads_its_lines(api: Api, leader: FakeLeader) -> None:
    task = api.submit(headers={"Daybreak-Tenant": "acme"})["id"]
    claim = leader.claim()
    say(leader, claim, 1)
    assert numbers(page(api, task, headers={"Daybreak-Tenant": "acme"})) == [1]
    for query in ({}, {"follow": "true"}):
        assert page(api, task, 404, **query)["code"] == "not_found"
        assert page(api, task, 404, headers={"Daybreak-Tenant": "other"}, **query)["code"] == "not_found"
    leader.finish(claim)


@pytest.mark.parametrize(
    ("query", "status", "code"),
    [
        ({"after": "yesterday"}, 400, "bad_event_id"),
        ({"after": "yesterday", "follow": "true"}, 400, "bad_event_id"),
        ({"limit": "0"}, 422, "invalid_input"),
        ({"limit": "1001"}, 422, "invalid_input"),
        ({"follow": "perhaps"}, 422, "invalid_input"),
        ({"follow": "true", "headers": {"Accept": "image/png"}}, 406, "not_acceptable"),
    ],
)
def test_a_wrong_request_is_refused(api: Api, query: dict[str, Any], status: int, code: str) -> None:
    assert page(api, api.submit()["id"], status, **query)["code"] == code


def test_a_page_has_only_the_lines_that_the_store_still_has(api: Api, leader: FakeLeader) -> None:
    """The store keeps about 1,000 events of a task. The numbers of the lines show what is missing."""
    task = api.submit()["id"]
    claim = leader.claim()
    for first in range(1, 1501, 100):
        drafts = [
            EventDraft(type="log", data={"level": "info", "message": "x" * 2000, "line": number})
            for number in range(first, first + 100)
        ]
        leader.queue.report(claim.lease, drafts)
    kept = numbers(page(api, task, limit=1000))
    assert kept[-1] in (1499, 1500)
    assert len(kept) == 1000
    assert kept == list(range(kept[0], kept[0] + 1000))
    leader.finish(claim)
