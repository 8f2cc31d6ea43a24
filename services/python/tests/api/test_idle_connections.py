"""Connections that clients and proxies keep open between requests."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest
from api_support import Api
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from daybreak_server.api.http.gathered_writes import GatheringProtocol, OneTimerProtocol, protocol_on

PROXIES_KEEP_S = 60
"""How long nginx and AWS load balancers keep an idle connection by default."""
KEEP_S = 2
GET = b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n"
HEAD_OF_SUBMIT = (
    b"POST /v1/tasks HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\ncontent-length: 2\r\n\r\n"
)


BOTH = pytest.mark.parametrize("protocol", [OneTimerProtocol, GatheringProtocol])


def test_a_uvicorn_without_the_private_methods_keeps_its_own_timers():
    assert protocol_on() is OneTimerProtocol
    assert issubclass(OneTimerProtocol, HttpToolsProtocol)
    assert protocol_on(object) is GatheringProtocol


def test_an_idle_connection_is_closed_by_the_proxy_and_not_by_the_gateway(start_api: Callable[..., Api]):
    api = start_api()
    assert api.server.config.timeout_keep_alive > PROXIES_KEEP_S


@BOTH
def test_a_connection_is_closed_when_it_has_been_idle_since_its_last_response(
    start_api: Callable[..., Api], protocol: type
):
    with _connect(start_api(), protocol) as connection:
        connection.sendall(GET)
        assert connection.recv(65536)
        time.sleep(KEEP_S / 4)
        sent_at = time.monotonic()
        connection.sendall(GET)
        assert connection.recv(65536)
        assert connection.recv(65536) == b""
        assert time.monotonic() - sent_at > 0.95 * KEEP_S


@BOTH
def test_a_connection_with_a_request_is_not_idle(start_api: Callable[..., Api], protocol: type):
    with _connect(start_api(), protocol) as connection:
        connection.sendall(GET)
        assert connection.recv(65536)
        connection.sendall(HEAD_OF_SUBMIT)
        time.sleep(1.5 * KEEP_S)
        connection.sendall(b"{}")
        assert connection.recv(65536).startswith(b"HTTP/1.1 4")


def _connect(api: Api, protocol: type) -> socket.socket:
    api.server.config.http_protocol_class = protocol
    api.server.config.timeout_keep_alive = KEEP_S
    return socket.create_connection(("127.0.0.1", urlsplit(api.url).port or 0), timeout=30)
