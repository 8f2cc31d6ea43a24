"""Servers of both kinds for the store's tests; every test ends with a look at the keys it leaves."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from testkit.store_driver import Driver, check_keys
from testkit.valkey import Server, binary, start_valkey


@pytest.fixture(scope="session", params=["valkey", "redis"])
def server_session(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Valkey, and Redis 7.0 where it is installed."""
    if binary(request.param) is None:
        pytest.skip("no redis-server on PATH (Debian: apt-get install redis-server)")
    server = start_valkey(tmp_path_factory.mktemp(request.param), flavour=request.param)
    yield server
    server.stop()


@pytest.fixture
def server(server_session: Server) -> Iterator[Server]:
    """The server, empty; afterwards no key may be left over or orphaned."""
    with server_session.client() as client:
        client.flushall()
    yield server_session
    with server_session.client() as client:
        check_keys(client)


@pytest.fixture
def driver(server: Server) -> Iterator[Driver]:
    """The scripts with a clock of the test's own."""
    driver = Driver(server.url)
    yield driver
    driver.close()
