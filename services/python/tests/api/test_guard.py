"""Names and pages that may use the API: DNS rebinding and cross-site requests are refused, programs are not."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from api_support import Api
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from daybreak_server.api.http.origin_check import Guard
from daybreak_server.settings.tree import HttpSettings

BODY = {"pool": "echo", "input": {"message": "hi"}}


def ask(api: Api, method: str, path: str, **headers: str) -> httpx2.Response:
    """A request with these headers; `_` in their names is `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.client.request(method, path, headers=named, json=BODY if method == "POST" else None)


def refused(answer: httpx2.Response, code: str, status: int) -> str:
    """The detail of a refusal."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert (problem["code"], answer.headers["content-type"]) == (code, "application/problem+json")
    assert problem["request_id"] == answer.headers["x-request-id"]
    return str(problem["detail"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/tasks"),
        ("POST", "/v1/tasks"),  # the short way
        ("POST", "/v1/tasks:batch"),
        ("DELETE", "/v1/tasks/echo_01AAAAAAAAAAAAAAAAAAAAAAAA"),
        ("GET", "/docs"),
        ("GET", "/metrics"),
        ("GET", "/unknown_websocket"),
    ],
)
@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:8000",
        "localhost.evil.example",
        "evil",
        "127.0.0.1.evil.example",
        "127.0.0.1@evil",
    ],
)
def test_a_name_that_is_not_ours_is_refused_everywhere(api: Api, method: str, path: str, host: str) -> None:
    """As a page comes whose name was rebound to this machine, on the short way as on the usual one."""
    assert "allowed_hosts" in refused(ask(api, method, path, Host=host), "host_not_allowed", 421)


def test_a_forwarding_header_does_not_help_a_rebound_page(api: Api) -> None:
    """A page can send such headers to what it takes for its own server."""
    answer = ask(api, "GET", "/v1/tasks", Host="evil.example", X_Forwarded_For="10.0.0.1")
    refused(answer, "host_not_allowed", 421)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.0.1:8000",
        "localhost",
        "LOCALHOST:1",
        "localhost.",
        "app.localhost",
        "[::1]:8000",
        "10.1.2.3:8000",
        socket.gethostname(),
    ],
)
def test_addresses_and_names_of_this_machine_are_fine(api: Api, host: str) -> None:
    """Also an address that is not ours: probes use a pod's, and no address can be rebound."""
    assert ask(api, "GET", "/healthz", Host=host).status_code == 200
    assert ask(api, "POST", "/v1/tasks", Host=host).status_code == 202


def test_allowed_hosts_adds_names(start_api: Callable[..., Api]) -> None:
    """Whole names, everything below one, or all; without regard to case and port."""
    api = start_api(http={"allowed_hosts": "Daybreak.example.com, *.internal"})
    for host in ("daybreak.example.com", "DAYBREAK.example.com:8443", "a.b.internal", "localhost"):
        assert ask(api, "GET", "/v1/tasks", Host=host).status_code == 200
    for host in ("example.com", "x.daybreak.example.com", "internal", "evilinternal"):
        refused(ask(api, "GET", "/v1/tasks", Host=host), "host_not_allowed", 421)
    every = start_api(http={"allowed_hosts": "*"})
    assert ask(every, "GET", "/v1/tasks", Host="evil.example").status_code == 200


@pytest.mark.parametrize(
    ("settings", "client", "host", "fine"),
    [
        ({"host": "0.0.0.0"}, "10.2.3.4", "daybreak.example.com", True),  # an Ingress
        ({"host": "0.0.0.0"}, "127.0.0.1", "daybreak.example.com", False),  # kubectl port-forward
        ({"host": "0.0.0.0"}, "::ffff:127.0.0.1", "daybreak.example.com", False),
        ({"host": "0.0.0.0"}, "127.0.0.1", "localhost:8000", True),
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, "10.2.3.4", "b.example", False),
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, "10.2.3.4", "10.9.9.9:8000", True),  # a probe
        ({"host": "127.0.0.1"}, "10.2.3.4", "b.example", False),
        ({"host": "gateway.local"}, "127.0.0.1", "gateway.local:80", True),
    ],
)
def test_who_is_asked_for_the_right_name(
    settings: dict[str, Any], client: str, host: str, fine: bool
) -> None:
    """Those from this machine; all others where names are set. Behind an Ingress all names are taken."""
    guard = Guard(HttpSettings.model_validate(settings))
    headers = [(b"host", host.encode())]
    error = guard.check({"type": "http", "method": "GET", "client": (client, 5), "headers": headers})
    assert (error is None) is fine


CROSS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},  # another port is another site's page
    {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://a.localhost", "Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site"},
]


@pytest.mark.parametrize("headers", CROSS, ids=str)
def test_a_page_of_another_site_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    """Submit, batch, cancel, replay, delete: nothing happens. It cannot read either, as no CORS header comes."""
    task = api.submit()["id"]
    for method, path in (
        ("POST", "/v1/tasks"),
        ("POST", "/generate"),
        ("POST", "/v1/tasks:batch"),
        ("POST", f"/v1/tasks/{task}/cancel"),
        ("POST", f"/v1/tasks/{task}/replay"),
        ("DELETE", f"/v1/tasks/{task}"),
    ):
        assert "allowed_origins" in refused(ask(api, method, path, **headers), "origin_not_allowed", 403)
    assert api.get(task)["state"] == "queued"
    assert len(api.client.get("/v1/tasks").json()["data"]) == 1
    answer = ask(api, "GET", "/v1/tasks", **headers)
    assert not any(name.startswith("access-control") for name in answer.headers)


def handshake(api: Api, path: str, **headers: str) -> int:
    """The status that answers a WebSocket's handshake."""
    try:
        with connect(api.url.replace("http", "ws", 1) + path, additional_headers=headers, open_timeout=60):
            return 101
    except InvalidStatus as exc:
        answer = exc.response
    assert answer.body is not None
    assert json.loads(answer.body)["code"] == "origin_not_allowed"
    return answer.status_code


def test_a_page_of_another_site_opens_no_websocket(api: Api) -> None:
    """A WebSocket knows no CORS: only the server can refuse it. Its own pages and programs may."""
    path = f"/v1/tasks/{api.submit()['id']}/ws"
    assert handshake(api, path, Origin="https://evil.example") == 403
    assert handshake(api, path, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert handshake(api, path, Origin=api.url) == 101
    assert handshake(api, path) == 101


def test_own_pages_and_programs_may_change_things(api: Api) -> None:
    """The page at /docs; a page behind a proxy that renames the host; anything that is no browser."""
    for headers in (
        {},
        {"Origin": api.url},
        {"Origin": api.url, "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://shop.example", "Sec_Fetch_Site": "same-origin"},  # the proxy says 127.0.0.1
        {"Origin": "https://shop.example", "X_Forwarded_Host": "shop.example"},
        {"Origin": "http://localhost", "Host": "localhost:80"},
    ):
        assert ask(api, "POST", "/v1/tasks", **headers).status_code == 202, headers


def test_an_allowed_site_may_use_the_api_from_its_pages(start_api: Callable[..., Api]) -> None:
    """Preflight, answer, problem and WebSocket; another site still may not."""
    api = start_api(http={"allowed_origins": "https://app.example.com/,http://localhost:3000"})
    page = "https://app.example.com"
    preflight = api.client.options(
        "/v1/tasks",
        headers={
            "Origin": page,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "content-type,idempotency-key",
        },
    )
    assert preflight.status_code == 204
    assert preflight.headers["access-control-allow-headers"] == "content-type,idempotency-key"
    assert "POST" in preflight.headers["access-control-allow-methods"]
    found = ask(api, "POST", "/v1/tasks", Origin=page, Sec_Fetch_Site="cross-site")
    assert found.status_code == 202
    missing = ask(api, "GET", "/v1/tasks/nothing", Origin=page)
    for answer in (preflight, found, missing):
        assert answer.headers.get_list("access-control-allow-origin") == [page]
        assert "Origin" in answer.headers["vary"]
    assert "Location" in found.headers["access-control-expose-headers"]
    path = f"/v1/tasks/{found.json()['id']}/ws"
    assert handshake(api, path, Origin=page) == 101
    assert handshake(api, path, Origin="https://evil.example") == 403
    evil = ask(api, "POST", "/v1/tasks", Origin="https://evil.example", Sec_Fetch_Site="cross-site")
    refused(evil, "origin_not_allowed", 403)
    assert "access-control-allow-origin" not in evil.headers
