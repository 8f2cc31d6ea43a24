"""What every room's tests share: the ``support`` package on the path, and one real server for the session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from support.valkey import Server, start_valkey


@pytest.fixture(scope="session")
def valkey_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """An embedded Valkey for the whole session; use ``valkey`` to have it empty."""
    server = start_valkey(tmp_path_factory.mktemp("valkey"))
    yield server
    server.stop()


@pytest.fixture
def valkey(valkey_session: Server) -> Server:
    """The session's Valkey, emptied."""
    with valkey_session.client() as client:
        client.flushall()
    return valkey_session
