"""Host and Origin checks refuse DNS rebinding and cross-site requests, and do not affect programs."""

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

from daybreak_server.api.http.origin_check import OriginCheck
from daybreak_server.settings.tree import HttpSettings

BODY = {"pool": "echo", "input": {"message": "hi"}}


def send(api: Api, method: str, path: str, **headers: str) -> httpx2.Response:
    """Send a request with these headers. An `_` in a header's name stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return api.client.request(method, path, headers=named, json=BODY if method == "POST" else None)


def refusal_detail(response: httpx2.Response, code: str, status: int) -> str:
    """Check that the response is a refusal with this code and status. :returns: its detail."""
    assert response.status_code == status, response.text
    problem = response.json()
    assert (problem["code"], response.headers["content-type"]) == (code, "application/problem+json")
    assert problem["request_id"] == response.headers["x-request-id"]
    return str(problem["detail"])


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/tasks"),
        ("POST", "/v1/tasks"),  # this route has a fast path
        ("POST", "/v1/tasks:batch"),
        ("DELETE", "/v1/tasks/echo_01AAAAAAAAAAAAAAAAAAAAAAAA"),
        ("GET", "/docs"),
        ("GET", "/metrics"),
        ("GET", "/nowhere"),
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
def test_an_unknown_host_is_refused_on_every_route(api: Api, method: str, path: str, host: str) -> None:
    """After DNS rebinding, a page's host name resolves to this machine.

    The page's requests have that name in `Host`.
    """
    assert "allowed_hosts" in refusal_detail(send(api, method, path, Host=host), "host_not_allowed", 421)


def test_a_forwarding_header_does_not_help_a_rebound_page(api: Api) -> None:
    """A rebound page can set forwarding headers, because the browser takes this machine for the page's own server."""
    response = send(api, "GET", "/v1/tasks", Host="evil.example", X_Forwarded_For="10.0.0.1")
    refusal_detail(response, "host_not_allowed", 421)


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
def test_addresses_and_names_of_this_machine_are_allowed(api: Api, host: str) -> None:
    """Any IP address is allowed too: probes use a pod's address, and an address cannot be rebound."""
    assert send(api, "GET", "/healthz", Host=host).status_code == 200
    assert send(api, "POST", "/v1/tasks", Host=host).status_code == 202


def test_the_setting_allowed_hosts_adds_names(start_api: Callable[..., Api]) -> None:
    """The setting accepts names, all names below a domain, or every name. Case and port make no difference."""
    api = start_api(http={"allowed_hosts": "Daybreak.example.com, *.internal"})
    for host in ("daybreak.example.com", "DAYBREAK.example.com:8443", "a.b.internal", "localhost"):
        assert send(api, "GET", "/v1/tasks", Host=host).status_code == 200
    for host in ("example.com", "x.daybreak.example.com", "internal", "evilinternal"):
        refusal_detail(send(api, "GET", "/v1/tasks", Host=host), "host_not_allowed", 421)
    open_to_all = start_api(http={"allowed_hosts": "*"})
    assert send(open_to_all, "GET", "/v1/tasks", Host="evil.example").status_code == 200


@pytest.mark.parametrize(
    ("settings", "client", "host", "allowed"),
    [
        ({"host": "0.0.0.0"}, "10.2.3.4", "daybreak.example.com", True),  # an Ingress
        ({"host": "0.0.0.0"}, "127.0.0.1", "daybreak.example.com", False),  # kubectl port-forward
        ({"host": "0.0.0.0"}, "::ffff:127.0.0.1", "daybreak.example.com", False),
        ({"host": "0.0.0.0"}, "127.0.0.1", "localhost:8000", True),
        ({"host": "0.0.0.0"}, None, "daybreak.example.com", False),  # reset before it was accepted
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, "10.2.3.4", "b.example", False),
        ({"host": "0.0.0.0", "allowed_hosts": ["a.example"]}, "10.2.3.4", "10.9.9.9:8000", True),  # a probe
        ({"host": "127.0.0.1"}, "10.2.3.4", "b.example", False),
        ({"host": "gateway.local"}, "127.0.0.1", "gateway.local:80", True),
    ],
)
def test_local_clients_need_an_allowed_host(
    settings: dict[str, Any], client: str | None, host: str, allowed: bool
) -> None:
    """Clients on this machine always need an allowed host.

    Other clients need one if the server listens on loopback or ``allowed_hosts`` is set. Otherwise they may use any
    host, because an Ingress in front of the server checks the host.
    """
    origin_check = OriginCheck(HttpSettings.model_validate(settings))
    headers = [(b"host", host.encode())]
    address = client and (client, 5)
    error = origin_check.check({"type": "http", "method": "GET", "client": address, "headers": headers})
    assert (error is None) is allowed


CROSS_SITE_HEADERS = [
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://127.0.0.1:1"},  # Another port is another origin.
    {"Origin": "https://evil.example", "Sec_Fetch_Site": "cross-site"},
    {"Origin": "http://a.localhost", "Sec_Fetch_Site": "same-site"},
    {"Sec_Fetch_Site": "cross-site"},
]


@pytest.mark.parametrize("headers", CROSS_SITE_HEADERS, ids=str)
def test_a_page_of_another_site_changes_nothing(api: Api, headers: dict[str, str]) -> None:
    """The server refuses to submit, batch, cancel, replay or delete for a page of another site.

    Responses have no CORS headers, so the page cannot read them either.
    """
    task = api.submit()["id"]
    for method, path in (
        ("POST", "/v1/tasks"),
        ("POST", "/generate"),
        ("POST", "/v1/tasks:batch"),
        ("POST", f"/v1/tasks/{task}/cancel"),
        ("POST", f"/v1/tasks/{task}/replay"),
        ("DELETE", f"/v1/tasks/{task}"),
    ):
        assert "allowed_origins" in refusal_detail(
            send(api, method, path, **headers), "origin_not_allowed", 403
        )
    assert api.get(task)["state"] == "queued"
    assert len(api.client.get("/v1/tasks").json()["data"]) == 1
    response = send(api, "GET", "/v1/tasks", **headers)
    assert not any(name.startswith("access-control") for name in response.headers)


def handshake(api: Api, path: str, **headers: str) -> int:
    """The status of the response to a WebSocket handshake."""
    try:
        with connect(api.url.replace("http", "ws", 1) + path, additional_headers=headers, open_timeout=60):
            return 101
    except InvalidStatus as exc:
        response = exc.response
    assert response.body is not None
    assert json.loads(response.body)["code"] == "origin_not_allowed"
    return response.status_code


def test_a_page_of_another_site_opens_no_websocket(api: Api) -> None:
    """CORS does not cover WebSockets, so the server refuses such a page's handshake.

    The server's own pages may connect, and so may programs.
    """
    path = f"/v1/tasks/{api.submit()['id']}/ws"
    assert handshake(api, path, Origin="https://evil.example") == 403
    assert handshake(api, path, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert handshake(api, path, Origin=api.url) == 101
    assert handshake(api, path) == 101


def test_own_pages_and_programs_may_change_things(api: Api) -> None:
    """The server's own pages are the page at /docs, and pages behind a proxy that rewrites the host."""
    for headers in (
        {},
        {"Origin": api.url},
        {"Origin": api.url, "Sec_Fetch_Site": "same-origin"},
        # Behind a proxy that sends Host: 127.0.0.1.
        {"Origin": "https://shop.example", "Sec_Fetch_Site": "same-origin"},
        {"Origin": "https://shop.example", "X_Forwarded_Host": "shop.example"},
        {"Origin": "http://localhost", "Host": "localhost:80"},
    ):
        assert send(api, "POST", "/v1/tasks", **headers).status_code == 202, headers


def test_an_allowed_site_may_use_the_api_from_its_pages(start_api: Callable[..., Api]) -> None:
    """The site's pages can send preflights, read responses and errors, and open WebSockets.

    Other sites are still refused.
    """
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
    assert {"POST", "PATCH", "DELETE"} <= set(preflight.headers["access-control-allow-methods"].split(", "))
    submitted = send(api, "POST", "/v1/tasks", Origin=page, Sec_Fetch_Site="cross-site")
    assert submitted.status_code == 202
    missing = send(api, "GET", "/v1/tasks/nothing", Origin=page)
    for response in (preflight, submitted, missing):
        assert response.headers.get_list("access-control-allow-origin") == [page]
        assert "Origin" in response.headers["vary"]
    assert "Location" in submitted.headers["access-control-expose-headers"]
    path = f"/v1/tasks/{submitted.json()['id']}/ws"
    assert handshake(api, path, Origin=page) == 101
    assert handshake(api, path, Origin="https://evil.example") == 403
    evil = send(api, "POST", "/v1/tasks", Origin="https://evil.example", Sec_Fetch_Site="cross-site")
    refusal_detail(evil, "origin_not_allowed", 403)
    assert "access-control-allow-origin" not in evil.headers
