"""Behind a proxy that serves the API prefix a path prefix, every link leads back through the proxy."""

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
from daybreak_server.api.path_prefix import PathPrefixes
from daybreak_server.domain.tasks import EventDraft
from daybreak_server.settings.tree import HttpSettings

KEPT = "/apps/daybreak"
"""The configured prefix, which a proxy leaves in the path or strips."""
FORWARDED = "/from/outside"


def links(found: Any) -> list[str]:
    """All paths of the API in a JSON value, except in what clients sent."""
    if isinstance(found, dict):
        return [link for name, item in found.items() if name != "input" for link in links(item)]
    if isinstance(found, list):
        return [link for item in found for link in links(item)]
    return [found] if isinstance(found, str) and "/v1/" in found else []


class Through:
    """Sends requests as a proxy does."""

    def __init__(self, api: Api, prefix: str, path: str, headers: dict[str, str]) -> None:
        self.prefix, self.path, self.headers = prefix, path, headers
        self.url = api.url + path
        self.client = httpx2.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def events(self, task: str, after: str | None = None) -> list[dict[str, Any]]:
        headers = {} if after is None else {"Last-Event-ID": after}
        with self.client.stream("GET", f"/v1/tasks/{task}/events", headers=headers) as response:
            return list(parse(response.iter_lines()))


WAYS = {
    "kept in the path": (KEPT, KEPT, {}),
    "stripped": (KEPT, "", {}),
    "sent by the proxy": (FORWARDED, "", {"X-Forwarded-Prefix": FORWARDED + "/"}),
    "sent by two proxies": (FORWARDED + "/two", "", {"X-Forwarded-Prefix": f"{FORWARDED}, /two"}),
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
    """Location, links, files, lists, batches, previews and events. What a client sent is unchanged."""
    body = {"pool": "echo", "input": {"message": '{"url":"/v1/tasks/mine"}'}}
    made = through.client.post("/v1/tasks", json=body)
    task = made.json()["id"]
    assert made.headers["location"] == f"{through.prefix}/v1/tasks/{task}"
    claim = worker.claim()
    worker.queue.report(claim.lease, [EventDraft(type="preview", data={"name": "preview", "step": 1})])
    worker.finish(claim, worker.upload(claim, "echo.txt", b"hello"))
    events = through.events(task)
    urls = [event["data"]["url"] for event in events if "url" in event["data"]]
    assert f"{through.prefix}/v1/tasks/{task}/preview" in urls
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
        assert {link.partition("/v1/")[0] for link in links(value)} == {through.prefix}, name
    assert found["task"]["input"]["message"] == body["input"]["message"]
    url = found["task"]["artifacts"][0]["url"]
    assert through.client.get(url.removeprefix(through.prefix)).content == b"hello"


@pytest.mark.parametrize("through", WAYS, indirect=True)
def test_the_pages_lead_through_the_proxy(through: Through) -> None:
    """The redirect to the documentation, its links and requests, and the servers of the OpenAPI document."""
    root = through.client.get("/", follow_redirects=False)
    assert root.headers["location"] == f"{through.prefix}/docs"
    page = through.client.get("/docs").text
    paths = re.findall(r'(?:data-path|href)="([^"]+)"', page)
    assert len(paths) > 10
    assert all(path.startswith(f"{through.prefix}/") for path in paths)
    assert f"</span>{through.prefix}/v1/pools&#x27;" in page or f"</span>{through.prefix}/v1/pools'" in page
    assert through.client.get("/openapi.json").json()["servers"] == [{"url": through.prefix}]
    assert f"{through.prefix}/docs" in through.client.get("/nowhere").json()["detail"]


def test_subscribers_with_different_prefixes_get_their_own_links(behind: Api, worker: Worker) -> None:
    """An event is encoded once for all: SSE and WebSocket, with and without a prefix, live and from history."""
    ways = [Through(behind, *way) for way in (*WAYS.values(), ("", "", {"X-Forwarded-Prefix": "/"}))]
    task = behind.submit()["id"]
    with ExitStack() as stack:
        opened = []
        for way in ways:
            client = stack.enter_context(way.client)
            response = stack.enter_context(client.stream("GET", f"/v1/tasks/{task}/events"))
            lines = response.iter_lines()
            next(lines)
            place = f"{way.url.replace('http', 'ws', 1)}/v1/tasks/{task}/ws"
            opened.append((lines, connect(place, additional_headers=way.headers, open_timeout=60)))
        claim = worker.claim()
        worker.finish(claim, worker.upload(claim, "echo.txt", b"hello"))
        for way, (lines, socket) in zip(ways, opened, strict=True):
            for events in (list(parse(lines)), drain(socket)[0], way.events(task)):
                assert {link.partition("/v1/")[0] for link in links(events)} == {way.prefix}


def test_without_a_setting_there_is_no_prefix(api: Api) -> None:
    """The header of an untrusted proxy is ignored, and a path prefix a prefix is unknown."""
    response = api.client.post(
        "/v1/tasks", json={"pool": "echo", "input": {}}, headers={"X-Forwarded-Prefix": "/evil"}
    )
    assert (
        response.headers["location"]
        == response.json()["links"]["self"]
        == f"/v1/tasks/{response.json()['id']}"
    )
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
def test_only_a_trusted_proxys_valid_prefix_counts(client: str, header: str | None, prefix: str) -> None:
    """It must be a path, because it appears in pages."""
    prefixes = PathPrefixes(HttpSettings(root_path=KEPT, trusted_proxies=("10.0.0.0/8",)))
    headers = [] if header is None else [(b"x-forwarded-prefix", header.encode())]
    assert prefixes.of({"client": (client, 1), "headers": headers}) == prefix


@pytest.mark.parametrize("path", ["/apps/daybreak", "/apps/daybreakers/x", "/apps", "/apps/daybreak/"])
def test_only_the_whole_prefix_is_stripped(path: str) -> None:
    """A path that merely begins with the same characters is unchanged."""
    found = PathPrefixes(HttpSettings(root_path=KEPT)).path({"path": path})
    assert found == ("/" if path.rstrip("/") == KEPT else path)


@pytest.mark.parametrize("path", ["/v1", "/docs/x", "daybreak", "/a/../b", "/a b", "https://x"])
def test_a_root_path_must_be_a_path_that_hides_no_route(path: str) -> None:
    """A prefix that begins like a path of the API would hide it."""
    with pytest.raises(ValidationError, match=r"choose another|write a path"):
        HttpSettings(root_path=path)


async def test_a_mounted_app_uses_its_mount_path(api: Api) -> None:
    """Another app, or Ray Serve's route prefix, sets the ASGI root path."""
    transport = httpx2.ASGITransport(api.server.config.app, root_path="/mounted")
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/mounted/", "/mounted"):
            assert (await client.get(path)).headers["location"] == "/mounted/docs"
        document = (await client.get("/mounted/openapi.json")).json()
    assert document["servers"] == [{"url": "/mounted"}]


async def test_the_client_works_below_a_path(behind: Api, worker: Worker, tmp_path: Path) -> None:
    """Both clients, with a URL that has a path: submit, follow, get, download."""
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
