"""Connections that clients and proxies keep open between requests."""

from __future__ import annotations

from collections.abc import Callable

from api_support import Api

PROXIES_KEEP_S = 60
"""How long nginx and AWS load balancers keep an idle connection by default."""


def test_an_idle_connection_is_closed_by_the_proxy_and_not_by_the_gateway(start_api: Callable[..., Api]):
    api = start_api()
    assert api.server.config.timeout_keep_alive > PROXIES_KEEP_S
