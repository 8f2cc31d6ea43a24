"""Valkey and Redis servers for the store's tests. After each test, a fixture checks the keys that the test left."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server, binary, start_valkey


@pytest.fixture(scope="session", params=["valkey", "redis"])
def server_session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A Valkey server, and a Redis server if one is installed."""
    if binary(request.param) is None:
        pytest.skip("no redis-server on PATH (Debian: apt-get install redis-server)")
    server = start_valkey(tmp_path_factory.mktemp(request.param), flavour=request.param)
    yield server
    server.stop()


@pytest.fixture
def server(server_session: Server) -> Iterator[Server]:
    """An empty server. After the test, every key must be known, have its documented TTL and belong to a record."""
    with server_session.client() as client:
        client.flushall()
    yield server_session
    with server_session.client() as client:
        check_keys(client)


@pytest.fixture
def driver(server: Server) -> Iterator[Driver]:
    """Calls the Lua scripts with a clock that the test sets."""
    driver = Driver(server.url)
    yield driver
    driver.close()
