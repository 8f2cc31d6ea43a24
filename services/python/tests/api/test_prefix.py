"""Behind a proxy that serves the API below a path: every link leads back through the proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import Api, Worker, parse
from pydantic import ValidationError
from test_streams import drain
from websockets.sync.client import connect

from daybreak import AsyncClient, Client
from daybreak_server.api.path_prefix import Prefixes
from daybreak_server.domain.tasks import EventDraft
from daybreak_server.settings.tree import HttpSettings

KEPT = "/apps/daybreak"
"""The setting: a proxy that leaves the prefix in the path, or takes it away."""
FORWARDED = "/from/outside"


def links(found: Any) -> list[str]:
    """All paths of the API in a JSON value, but for what clients have sent."""
    if isinstance(found, dict):
        return [link for name, item in found.items() if name != "input" for link in links(item)]
    if isinstance(found, list):
        return [link for item in found for link in links(item)]
    return [found] if isinstance(found, str) and "/v1/" in found else []


class Through:
    """Requests as they come from a proxy."""

    def __init__(self, api: Api, below: str, path: str, headers: dict[str, str]) -> None:
        self.below, self.path, self.headers = below, path, headers
        self.url = api.url + path
        self.client = httpx2.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def events(self, task: str, after: str | None = None) -> list[dict[str, Any]]:
        headers = {} if after is None else {"Last-Event-ID": after}
        with self.client.stream("GET", f"/v1/tasks/{task}/events", headers=headers) as answer:
            return list(parse(answer.iter_lines()))


WAYS = {
    "left in the path": (KEPT, KEPT, {}),
    "taken away": (KEPT, "", {}),
    "said by the proxy": (FORWARDED, "", {"X-Forwarded-Prefix": FORWARDED + "/"}),
    "said by two proxies": (FORWARDED + "/two", "", {"X-Forwarded-Prefix": f"{FORWARDED}, /two"}),
}


@pytest.fixture
def behind(start_api: Callable[..., Api]) -> Api:
    """A server that has both settings."""
    return start_api(http={"root_path": KEPT, "trusted_proxies": "127.0.0.0/8"})


@pytest.fixture
def through(behind: Api, request: pytest.FixtureRequest) -> Iterator[Through]:
    found = Through(behind, *WAYS[request.param])
    with found.client:
        yield found


@pytest.mark.parametrize("through", WAYS, indirect=True)
def test_every_link_leads_through_the_proxy(behind: Api, worker: Worker, through: Through) -> None:
    """Location, links, files, lists, batches, previews and events; what a client sent stays as it came."""
    body = {"pool": "echo", "input": {"message": '{"url":"/v1/tasks/mine"}'}}
    made = through.client.post("/v1/tasks", json=body)
    task = made.json()["id"]
    assert made.headers["location"] == f"{through.below}/v1/tasks/{task}"
    claim = worker.claim()
    worker.queue.report(
        claim.lease, [EventDraft(type="preview", data={"url": f"/v1/tasks/{task}/preview", "step": 1})]
    )
    worker.finish(claim, worker.upload(claim, "echo.txt", b"hello"))
    events = through.events(task)
    urls = [event["data"]["url"] for event in events if "url" in event["data"]]
    assert f"{through.below}/v1/tasks/{task}/preview" in urls
    found = {
        "submit": made.json(),
        "task": through.client.get(f"/v1/tasks/{task}").json(),
        "list": through.client.get("/v1/tasks").json(),
        "batch": through.client.post("/v1/tasks:batch", json={"tasks": [body]}).json(),
        "events": events,
        "snapshot": through.events(task, after="9999999999999-0"),
    }
    for name, value in found.items():
        assert links(value), name
        assert {link.partition("/v1/")[0] for link in links(value)} == {through.below}, name
    assert found["task"]["input"]["message"] == body["input"]["message"]
    url = found["task"]["artifacts"][0]["url"]
    assert through.client.get(url.removeprefix(through.below)).content == b"hello"


@pytest.mark.parametrize("through", WAYS, indirect=True)
def test_the_pages_lead_through_the_proxy(through: Through) -> None:
    """The way to them, their own links and requests, and the document's server."""
    root = through.client.get("/", follow_redirects=False)
    assert root.headers["location"] == f"{through.below}/docs"
    page = through.client.get("/docs").text
    paths = re.findall(r'(?:data-path|href)="([^"]+)"', page)
    assert len(paths) > 10
    assert all(path.startswith(f"{through.below}/") for path in paths)
    assert f"</span>{through.below}/v1/pools&#x27;" in page or f"</span>{through.below}/v1/pools'" in page
    assert through.client.get("/openapi.json").json()["servers"] == [{"url": through.below}]
    assert f"{through.below}/docs" in through.client.get("/unknown_websocket").json()["detail"]


def test_those_who_follow_together_get_links_of_their_own(behind: Api, worker: Worker) -> None:
    """An event is made once for all: by SSE and WebSocket, with and without a prefix, live and from history."""
    ways = [Through(behind, *way) for way in (*WAYS.values(), ("", "", {"X-Forwarded-Prefix": "/"}))]
    task = behind.submit()["id"]
    with ExitStack() as stack:
        opened = []
        for way in ways:
            client = stack.enter_context(way.client)
            answer = stack.enter_context(client.stream("GET", f"/v1/tasks/{task}/events"))
            lines = answer.iter_lines()
            next(lines)
            place = f"{way.url.replace('http', 'ws', 1)}/v1/tasks/{task}/ws"
            opened.append((lines, connect(place, additional_headers=way.headers, open_timeout=60)))
        claim = worker.claim()
        worker.finish(claim, worker.upload(claim, "echo.txt", b"hello"))
        for way, (lines, socket) in zip(ways, opened, strict=True):
            for events in (list(parse(lines)), drain(socket)[0], way.events(task)):
                assert {link.partition("/v1/")[0] for link in links(events)} == {way.below}


def test_without_a_setting_there_is_no_prefix(api: Api) -> None:
    """The header of a proxy that nobody has named counts for nothing, nor does a path below a prefix."""
    answer = api.client.post(
        "/v1/tasks", json={"pool": "echo", "input": {}}, headers={"X-Forwarded-Prefix": "/evil"}
    )
    assert answer.headers["location"] == answer.json()["links"]["self"] == f"/v1/tasks/{answer.json()['id']}"
    assert api.client.get(f"{KEPT}/v1/tasks").status_code == 404
    assert "servers" not in api.client.get("/openapi.json").json()


@pytest.mark.parametrize(
    ("client", "header", "prefix"),
    [
        ("10.1.2.3", "/a", "/a"),
        ("10.1.2.3", "/a/", "/a"),
        ("10.1.2.3", "/", ""),
        ("::ffff:10.1.2.3", "/a", "/a"),
        ("192.168.0.1", "/a", KEPT),
        ("10.1.2.3", "//evil.example", KEPT),
        ("10.1.2.3", "https://evil.example", KEPT),
        ("10.1.2.3", '/a"onload=x', KEPT),
        ("10.1.2.3", "/a/<b>", KEPT),
        ("10.1.2.3", "/" + "a" * 300, KEPT),
        ("10.1.2.3", None, KEPT),
    ],
)
def test_whose_prefix_counts(client: str, header: str | None, prefix: str) -> None:
    """Only that of a proxy that is trusted, and only if it is a path: it comes to stand in pages."""
    prefixes = Prefixes(HttpSettings(root_path=KEPT, trusted_proxies=("10.0.0.0/8",)))
    headers = [] if header is None else [(b"x-forwarded-prefix", header.encode())]
    assert prefixes.of({"client": (client, 1), "headers": headers}) == prefix


@pytest.mark.parametrize("path", ["/apps/daybreak", "/apps/daybreakers/x", "/apps", "/apps/daybreak/"])
def test_only_the_prefix_itself_is_taken_away(path: str) -> None:
    """Not what merely begins like it."""
    found = Prefixes(HttpSettings(root_path=KEPT)).path({"path": path})
    assert found == ("/" if path.rstrip("/") == KEPT else path)


@pytest.mark.parametrize("path", ["/v1", "/docs/x", "daybreak", "/a/../b", "/a b", "https://x"])
def test_a_root_path_is_a_path_that_is_not_ours(path: str) -> None:
    """A prefix that begins like a path of the API would hide it."""
    with pytest.raises(ValidationError, match=r"choose another|write a path"):
        HttpSettings(root_path=path)


async def test_a_mounted_app_knows_where_it_is(api: Api) -> None:
    """By the root path of ASGI: another app or Ray Serve's route prefix may be around it."""
    transport = httpx2.ASGITransport(api.server.config.app, root_path="/mounted")
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/mounted/", "/mounted"):
            assert (await client.get(path)).headers["location"] == "/mounted/docs"
        document = (await client.get("/mounted/openapi.json")).json()
    assert document["servers"] == [{"url": "/mounted"}]


async def test_the_client_works_below_a_path(behind: Api, worker: Worker, tmp_path: Path) -> None:
    """Both clients, with a URL that has a path: submit, follow, look, download."""
    with Client(behind.url + KEPT + "/") as client:
        task = client.submit("echo", {"message": "hi"})
        assert task.links.self == f"{KEPT}/v1/tasks/{task.id}"
        claim = worker.claim()
        worker.finish(claim, worker.upload(claim, "echo.txt", b"hello"))
        assert [event.type for event in client.events(task) if event.id][-1] == "succeeded"
        assert client.download(task.id, "echo.txt", tmp_path / "one").read_bytes() == b"hello"
    async with AsyncClient(behind.url + KEPT) as other:
        assert (await other.get(task)).state == "succeeded"
        assert (await other.download(task.id, "echo.txt", tmp_path / "two")).read_bytes() == b"hello"
