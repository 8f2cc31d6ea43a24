"""A browser stops following a task that has ended, and does not let a page of another site change a task."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import Api, FakeLeader, read_events
from test_streams import drain, socket, write

FOLLOW_TASK = """
const [path, done] = arguments;
const source = new EventSource(path), seen = [];
for (const type of ['queued', 'started', 'log', 'succeeded', 'reset'])
  source.addEventListener(type, () => seen.push(type));
source.onerror = () => { if (source.readyState === EventSource.CLOSED) done(seen); };
"""


def ended_task(api: Api, leader: FakeLeader, logs: int = 2) -> tuple[str, str]:
    """A task that has succeeded, and the id of its last event."""
    task = api.submit()["id"]
    claim = leader.claim()
    write(leader, claim, logs, batch=250)
    leader.finish(claim)
    return task, read_events(api.url, task)[-1]["id"]


def stream(api: Api, task: str, after: str | None = None, method: str = "GET") -> httpx2.Response:
    headers = {} if after is None else {"Last-Event-ID": after}
    return api.client.request(method, f"/v1/tasks/{task}/events", headers=headers)


def test_a_client_that_has_the_last_event_gets_204(api: Api, leader: FakeLeader) -> None:
    """The client may send the event's id in the header `Last-Event-ID` or in `?after=`.

    If it sends the id of an earlier event, or no id, it gets a stream up to the last event.
    """
    task, last = ended_task(api, leader)
    for response in (
        stream(api, task, last),
        api.client.get(f"/v1/tasks/{task}/events", params={"after": last}),
    ):
        assert (response.status_code, response.content) == (204, b"")
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in response.headers["cache-control"]
    all_events = read_events(api.url, task)
    for event in all_events[:-1]:
        assert stream(api, task, event["id"]).status_code == 200
    assert stream(api, task).status_code == 200


def test_a_running_task_is_followed_from_its_latest_event(api: Api, leader: FakeLeader) -> None:
    """A running task's latest event is not its last, so the stream stays open and sends the rest."""
    task = api.submit()["id"]
    claim = leader.claim()
    latest = read_events(api.url, task, until="started")[-1]["id"]
    with api.client.stream("GET", f"/v1/tasks/{task}/events", headers={"Last-Event-ID": latest}) as response:
        assert response.status_code == 200
        leader.finish(claim)
        assert "event: succeeded" in "\n".join(response.iter_lines())


@pytest.mark.parametrize("logs", [2, 1500], ids=["whole", "trimmed"])
def test_a_client_with_an_id_beyond_the_end_gets_a_snapshot_once(
    api: Api, leader: FakeLeader, logs: int
) -> None:
    """After the snapshot (`reset`) the client gets the last event.

    If it connects again with the id of that event, it gets no stream: SSE answers 204, and a WebSocket closes with
    1000.
    """
    task, last = ended_task(api, leader, logs)
    beyond = f"{int(last.partition('-')[0]) + 1000}-0"
    received = read_events(api.url, task, after=beyond)
    assert [event["type"] for event in received] == ["reset", "succeeded"]
    assert received[-1]["id"] == last
    assert stream(api, task, last).status_code == 204
    assert [event["type"] for event in drain(socket(api, task, f"?after={beyond}"))[0]] == [
        "reset",
        "succeeded",
    ]
    assert drain(socket(api, task, f"?after={last}")) == ([], 1000)


def test_the_stream_of_a_deleted_task_is_404(api: Api, leader: FakeLeader) -> None:
    """A browser's EventSource does not reconnect after a 404."""
    task, last = ended_task(api, leader)
    api.client.delete(f"/v1/tasks/{task}")
    assert stream(api, task, last).status_code == 404


@contextmanager
def _driver(folder: Path) -> Iterator[str]:
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as driver:
        try:
            assert driver.stdout is not None
            matches = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
            port = next(match[1] for match in matches if match)
            yield f"http://127.0.0.1:{port}"
        finally:
            driver.terminate()


@pytest.fixture
def run_in_chromium(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs a script in a page of a real browser. The script's last argument is a callback for the result."""
    if not (shutil.which("chromedriver") and shutil.which("chromium")):
        pytest.skip("needs the Debian packages chromium and chromium-driver")
    options = {
        "args": [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            f"--user-data-dir={tmp_path}/chromium",
        ]
    }
    capabilities = {
        "capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": 60_000}}}
    }
    with _driver(tmp_path) as url, httpx2.Client(base_url=url, timeout=120, verify=False) as client:

        def send(path: str, body: dict[str, Any]) -> Any:
            response = client.post(path, json=body)
            assert response.status_code == 200, response.text
            return response.json()["value"]

        session = f"/session/{send('/session', capabilities)['sessionId']}"

        def run(page: str, script: str, *args: Any) -> Any:
            send(f"{session}/url", {"url": page})
            return send(f"{session}/execute/async", {"script": script, "args": list(args)})

        try:
            yield run
        finally:
            client.delete(session)


TRY_BOTH_HOSTS = """
const [path, elsewhere, done] = arguments;
(async () => {
  const own = await fetch(path + '/cancel', {method: 'POST'}).then((response) => response.status);
  const options = {method: 'POST', mode: 'no-cors'};
  const cross = await fetch('http://' + elsewhere + path, options).then((response) => response.type);
  const opens = (host) => new Promise((resolve) => {
    const socket = new WebSocket('ws://' + host + path + '/ws');
    socket.onopen = () => resolve(true); socket.onerror = () => resolve(false);
  });
  done({own, cross, own_socket: await opens(location.host), cross_socket: await opens(elsewhere)});
})();
"""


def test_a_browser_lets_only_the_servers_own_pages_change_things(
    api: Api, run_in_chromium: Callable[..., Any]
) -> None:
    """To a browser, localhost and 127.0.0.1 are two sites: a page of one must not change tasks of the other."""
    task = api.submit()["id"]
    other_host = api.url.removeprefix("http://")
    page = f"http://{other_host.replace('127.0.0.1', 'localhost')}/docs"
    outcome = run_in_chromium(page, TRY_BOTH_HOSTS, f"/v1/tasks/{task}", other_host)
    assert outcome == {"own": 202, "cross": "opaque", "own_socket": True, "cross_socket": False}


def test_an_event_source_closes_by_itself_after_the_last_event(
    api: Api, leader: FakeLeader, run_in_chromium: Callable[..., Any]
) -> None:
    """The page leaves the EventSource open. Each event still arrives once, and the browser stops reconnecting."""
    task, _ = ended_task(api, leader)
    types = run_in_chromium(f"{api.url}/docs", FOLLOW_TASK, f"/v1/tasks/{task}/events")
    assert types == ["queued", "started", "log", "log", "succeeded"]
