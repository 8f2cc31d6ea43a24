"""A browser that follows a task stops by itself when the task has ended."""

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
from api_support import Api, Worker, read_events
from test_streams import drain, socket, write

FOLLOW = """
const [path, done] = arguments;
const source = new EventSource(path), seen = [];
for (const type of ['queued', 'started', 'log', 'succeeded', 'reset'])
  source.addEventListener(type, () => seen.push(type));
source.onerror = () => { if (source.readyState === EventSource.CLOSED) done(seen); };
"""


def ended_task(api: Api, worker: Worker, logs: int = 2) -> tuple[str, str]:
    """A task that has succeeded, and the id of its last event."""
    task = api.submit()["id"]
    claim = worker.claim()
    write(worker, claim, logs, batch=250)
    worker.finish(claim)
    return task, read_events(api.url, task)[-1]["id"]


def stream(api: Api, task: str, after: str | None = None, method: str = "GET") -> httpx2.Response:
    headers = {} if after is None else {"Last-Event-ID": after}
    return api.client.request(method, f"/v1/tasks/{task}/events", headers=headers)


def test_whoever_has_the_last_event_is_told_to_connect_no_more(api: Api, worker: Worker) -> None:
    """By the header and by ?after=. Every other id, and none, is answered with a stream up to the last event."""
    task, last = ended_task(api, worker)
    for answer in (
        stream(api, task, last),
        api.client.get(f"/v1/tasks/{task}/events", params={"after": last}),
    ):
        assert (answer.status_code, answer.content) == (204, b"")
        assert answer.headers["content-type"].startswith("text/event-stream")
        assert "no-cache" in answer.headers["cache-control"]
    every = read_events(api.url, task)
    for event in every[:-1]:
        assert stream(api, task, event["id"]).status_code == 200
    assert stream(api, task).status_code == 200


def test_a_task_that_runs_is_followed_from_its_latest_event(api: Api, worker: Worker) -> None:
    """The latest event of a task that has not ended is not its last: the stream stays open and brings the rest."""
    task = api.submit()["id"]
    claim = worker.claim()
    latest = read_events(api.url, task, until="started")[-1]["id"]
    with api.client.stream("GET", f"/v1/tasks/{task}/events", headers={"Last-Event-ID": latest}) as answer:
        assert answer.status_code == 200
        worker.finish(claim)
        assert "event: succeeded" in "\n".join(answer.iter_lines())


@pytest.mark.parametrize("logs", [2, 1500], ids=["whole", "trimmed"])
def test_a_client_with_an_id_beyond_the_end_gets_the_truth_once(api: Api, worker: Worker, logs: int) -> None:
    """First a snapshot and the last event, whose id then ends it: on SSE with 204, on a WebSocket with 1000."""
    task, last = ended_task(api, worker, logs)
    beyond = f"{int(last.partition('-')[0]) + 1000}-0"
    told = read_events(api.url, task, after=beyond)
    assert [event["type"] for event in told] == ["reset", "succeeded"]
    assert told[-1]["id"] == last
    assert stream(api, task, last).status_code == 204
    assert [event["type"] for event in drain(socket(api, task, f"?after={beyond}"))[0]] == [
        "reset",
        "succeeded",
    ]
    assert drain(socket(api, task, f"?after={last}")) == ([], 1000)


def test_a_deleted_task_ends_its_streams_too(api: Api, worker: Worker) -> None:
    """404, which ends an EventSource as well."""
    task, last = ended_task(api, worker)
    api.client.delete(f"/v1/tasks/{task}")
    assert stream(api, task, last).status_code == 404


@contextmanager
def _driver(folder: Path) -> Iterator[str]:
    command = ["chromedriver", "--port=0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder) as driver:
        try:
            assert driver.stdout is not None
            found = (re.search(r"successfully on port (\d+)", line) for line in driver.stdout)
            port = next(match[1] for match in found if match)
            yield f"http://127.0.0.1:{port}"
        finally:
            driver.terminate()


@pytest.fixture
def run_in_chromium(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Runs a script in a page of a real browser; its last argument is a callback for the result."""
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
    wanted = {
        "capabilities": {"alwaysMatch": {"goog:chromeOptions": options, "timeouts": {"script": 60_000}}}
    }
    with _driver(tmp_path) as url, httpx2.Client(base_url=url, timeout=120, verify=False) as client:

        def tell(path: str, body: dict[str, Any]) -> Any:
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return answer.json()["value"]

        session = f"/session/{tell('/session', wanted)['sessionId']}"

        def run(page: str, script: str, *args: Any) -> Any:
            tell(f"{session}/url", {"url": page})
            return tell(f"{session}/execute/async", {"script": script, "args": list(args)})

        try:
            yield run
        finally:
            client.delete(session)


REACH = """
const [path, elsewhere, done] = arguments;
(async () => {
  const own = await fetch(path + '/cancel', {method: 'POST'}).then((answer) => answer.status);
  const options = {method: 'POST', mode: 'no-cors'};
  const cross = await fetch('http://' + elsewhere + path, options).then((answer) => answer.type);
  const opens = (host) => new Promise((tell) => {
    const socket = new WebSocket('ws://' + host + path + '/ws');
    socket.onopen = () => tell(true); socket.onerror = () => tell(false);
  });
  done({own, cross, own_socket: await opens(location.host), cross_socket: await opens(elsewhere)});
})();
"""


def test_a_browser_lets_only_our_own_pages_change_things(
    api: Api, run_in_chromium: Callable[..., Any]
) -> None:
    """localhost and 127.0.0.1 are two sites to a browser: a page of one may not use the server by the other's name."""
    task = api.submit()["id"]
    elsewhere = api.url.removeprefix("http://")
    page = f"http://{elsewhere.replace('127.0.0.1', 'localhost')}/docs"
    got = run_in_chromium(page, REACH, f"/v1/tasks/{task}", elsewhere)
    assert got == {"own": 202, "cross": "opaque", "own_socket": True, "cross_socket": False}


def test_an_event_source_closes_by_itself_after_the_last_event(
    api: Api, worker: Worker, run_in_chromium: Callable[..., Any]
) -> None:
    """In a real browser, by a page that does nothing about it: each event once, and no connection for ever."""
    task, _ = ended_task(api, worker)
    seen = run_in_chromium(f"{api.url}/docs", FOLLOW, f"/v1/tasks/{task}/events")
    assert seen == ["queued", "started", "log", "log", "succeeded"]
