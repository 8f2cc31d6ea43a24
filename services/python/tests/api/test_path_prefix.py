"""If a proxy serves the API below a path prefix, every link leads back through the proxy."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import Api, FakeLeader, parse
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


def links(value: Any) -> list[str]:
    """All links to the API in a JSON value, except those in a task's input."""
    if isinstance(value, dict):
        return [link for name, item in value.items() if name != "input" for link in links(item)]
    if isinstance(value, list):
        return [link for item in value for link in links(item)]
    return [value] if isinstance(value, str) and "/v1/" in value else []


class ProxyClient:
    """Sends requests as a proxy would forward them."""

    def __init__(self, api: Api, prefix: str, path: str, headers: dict[str, str]) -> None:
        self.prefix, self.path, self.headers = prefix, path, headers
        self.url = api.url + path
        self.client = httpx2.Client(base_url=self.url, headers=headers, timeout=60, verify=False)

    def events(self, task: str, after: str | None = None) -> list[dict[str, Any]]:
        headers = {} if after is None else {"Last-Event-ID": after}
        with self.client.stream("GET", f"/v1/tasks/{task}/events", headers=headers) as response:
            return list(parse(response.iter_lines()))


PROXIES = {
    "kept in the path": (KEPT, KEPT, {}),
    "stripped": (KEPT, "", {}),
    "sent by the proxy": (FORWARDED, "", {"X-Forwarded-Prefix": FORWARDED + "/"}),
    "sent by two proxies": (FORWARDED + "/two", "", {"X-Forwarded-Prefix": f"{FORWARDED}, /two"}),
}


@pytest.fixture
def prefixed_api(start_api: Callable[..., Api]) -> Api:
    """A server with a root path and a trusted proxy."""
    return start_api(http={"root_path": KEPT, "trusted_proxies": "127.0.0.0/8"})


@pytest.fixture
def proxy(prefixed_api: Api, request: pytest.FixtureRequest) -> Iterator[ProxyClient]:
    client = ProxyClient(prefixed_api, *PROXIES[request.param])
    with client.client:
        yield client


@pytest.mark.parametrize("proxy", PROXIES, indirect=True)
def test_every_link_leads_through_the_proxy(
    prefixed_api: Api, leader: FakeLeader, proxy: ProxyClient
) -> None:
    """Checks the links in Location, tasks, lists, batches, files, previews and events.

    Paths in a client's input are unchanged.
    """
    body = {"pool": "echo", "input": {"message": '{"url":"/v1/tasks/mine"}'}}
    submitted = proxy.client.post("/v1/tasks", json=body)
    task = submitted.json()["id"]
    assert submitted.headers["location"] == f"{proxy.prefix}/v1/tasks/{task}"
    claim = leader.claim()
    leader.queue.report(claim.lease, [EventDraft(type="preview", data={"name": "preview", "step": 1})])
    leader.finish(claim, leader.upload(claim, "echo.txt", b"hello"))
    events = proxy.events(task)
    urls = [event["data"]["url"] for event in events if "url" in event["data"]]
    assert f"{proxy.prefix}/v1/tasks/{task}/preview" in urls
    responses = {
        "submit": submitted.json(),
        "task": proxy.client.get(f"/v1/tasks/{task}").json(),
        "list": proxy.client.get("/v1/tasks").json(),
        "batch": proxy.client.post("/v1/tasks:batch", json={"tasks": [body]}).json(),
        "events": events,
        "snapshot": proxy.events(task, after="9999999999999-0"),
    }
    for name, value in responses.items():
        assert links(value), name
        assert {link.partition("/v1/")[0] for link in links(value)} == {proxy.prefix}, name
    assert responses["task"]["input"]["message"] == body["input"]["message"]
    url = responses["task"]["artifacts"][0]["url"]
    assert proxy.client.get(url.removeprefix(proxy.prefix)).content == b"hello"


@pytest.mark.parametrize("proxy", PROXIES, indirect=True)
def test_the_pages_lead_through_the_proxy(proxy: ProxyClient) -> None:
    """Checks the redirect to the documentation page, this page's links, and the servers of the OpenAPI document."""
    root = proxy.client.get("/", follow_redirects=False)
    assert root.headers["location"] == f"{proxy.prefix}/docs"
    page = proxy.client.get("/docs").text
    paths = re.findall(r'(?:data-path|href)="([^"]+)"', page)
    assert len(paths) > 10
    assert all(path.startswith(f"{proxy.prefix}/") for path in paths)
    assert f"</span>{proxy.prefix}/v1/pools&#x27;" in page or f"</span>{proxy.prefix}/v1/pools'" in page
    assert proxy.client.get("/openapi.json").json()["servers"] == [{"url": proxy.prefix}]
    assert f"{proxy.prefix}/docs" in proxy.client.get("/nowhere").json()["detail"]


def test_subscribers_with_different_prefixes_get_their_own_links(
    prefixed_api: Api, leader: FakeLeader
) -> None:
    """An event is encoded only once for all subscribers. Still, each subscriber gets links with its own prefix."""
    proxies = [
        ProxyClient(prefixed_api, *proxy)
        for proxy in (*PROXIES.values(), ("", "", {"X-Forwarded-Prefix": "/"}))
    ]
    task = prefixed_api.submit()["id"]
    with ExitStack() as stack:
        streams = []
        for proxy in proxies:
            client = stack.enter_context(proxy.client)
            response = stack.enter_context(client.stream("GET", f"/v1/tasks/{task}/events"))
            lines = response.iter_lines()
            next(lines)
            socket_url = f"{proxy.url.replace('http', 'ws', 1)}/v1/tasks/{task}/ws"
            streams.append((lines, connect(socket_url, additional_headers=proxy.headers, open_timeout=60)))
        claim = leader.claim()
        leader.finish(claim, leader.upload(claim, "echo.txt", b"hello"))
        for proxy, (lines, socket) in zip(proxies, streams, strict=True):
            for events in (list(parse(lines)), drain(socket)[0], proxy.events(task)):
                assert {link.partition("/v1/")[0] for link in links(events)} == {proxy.prefix}


def test_without_a_setting_there_is_no_prefix(api: Api) -> None:
    """The server ignores the header of an untrusted proxy. For a path with an unknown prefix, it returns 404."""
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
    """The server puts the header's value into pages, so it accepts only a plain path."""
    prefixes = PathPrefixes(HttpSettings(root_path=KEPT, trusted_proxies=("10.0.0.0/8",)))
    headers = [] if header is None else [(b"x-forwarded-prefix", header.encode())]
    assert prefixes.of({"client": (client, 1), "headers": headers}) == prefix


@pytest.mark.parametrize("path", ["/apps/daybreak", "/apps/daybreakers/x", "/apps", "/apps/daybreak/"])
def test_only_the_whole_prefix_is_stripped(path: str) -> None:
    """A path that merely begins with the same characters is unchanged."""
    stripped = PathPrefixes(HttpSettings(root_path=KEPT)).path({"path": path})
    assert stripped == ("/" if path.rstrip("/") == KEPT else path)


@pytest.mark.parametrize("path", ["/v1", "/docs/x", "daybreak", "/a/../b", "/a b", "https://x"])
def test_a_root_path_must_be_a_path_that_hides_no_route(path: str) -> None:
    """A prefix that begins like a path of the API would hide that path."""
    with pytest.raises(ValidationError, match=r"choose another|write a path"):
        HttpSettings(root_path=path)


async def test_a_mounted_app_uses_its_mount_path(api: Api) -> None:
    """Ray Serve's route prefix sets the ASGI root path. So does an app that mounts this one."""
    transport = httpx2.ASGITransport(api.server.config.app, root_path="/mounted")
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        for path in ("/mounted/", "/mounted"):
            assert (await client.get(path)).headers["location"] == "/mounted/docs"
        document = (await client.get("/mounted/openapi.json")).json()
    assert document["servers"] == [{"url": "/mounted"}]


async def test_the_client_works_below_a_path(prefixed_api: Api, leader: FakeLeader, tmp_path: Path) -> None:
    """``Client`` and ``AsyncClient`` can submit, follow, get and download with a URL that has a path."""
    with Client(prefixed_api.url + KEPT + "/") as client:
        task = client.submit("echo", {"message": "hi"})
        assert task.links.self == f"{KEPT}/v1/tasks/{task.id}"
        claim = leader.claim()
        leader.finish(claim, leader.upload(claim, "echo.txt", b"hello"))
        assert [event.type for event in client.events(task) if event.id][-1] == "succeeded"
        assert client.download(task.id, "echo.txt", tmp_path / "one").read_bytes() == b"hello"
    async with AsyncClient(prefixed_api.url + KEPT) as other:
        assert (await other.get(task)).state == "succeeded"
        assert (await other.download(task.id, "echo.txt", tmp_path / "two")).read_bytes() == b"hello"
