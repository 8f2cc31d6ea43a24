"""Tests of the Redis servers that other tests start."""

from pathlib import Path

import pytest

from testkit.valkey import Server, binary, start_valkey


@pytest.mark.parametrize("flavour", ["valkey", "redis"])
def test_a_restart_keeps_port_and_data(tmp_path: Path, flavour: str) -> None:
    """After an orderly restart and after SIGKILL, a server has the same port and the same keys."""
    if binary(flavour) is None:
        pytest.skip("no redis-server on PATH")
    server = start_valkey(tmp_path, flavour=flavour)
    try:
        with server.client() as client:
            client.set("a", "1")
        server.restart()
        server.restart(hard=True)
        with server.client() as client:
            assert client.get("a") == b"1"
    finally:
        server.stop()


def test_the_shared_server_is_empty(valkey: Server) -> None:
    """The `valkey` fixture provides an empty server."""
    with valkey.client() as client:
        assert client.dbsize() == 0
