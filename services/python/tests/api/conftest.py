"""Fixtures: real servers of the API, with a real Valkey and a real folder, and stand-ins for leaders."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testkit.valkey import Server

sys.path.insert(0, str(Path(__file__).parent))

from api_support import POOL, Api, FakeLeader, Serving, make_settings

from daybreak_server.adapters.blobs.local import LocalBlobs
from daybreak_server.adapters.redis.queue import RedisQueue


@pytest.fixture
def start_api(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Api]]:
    """Starts servers, and stops them after the test. Each has the usual settings, changed by the call's arguments."""
    with ExitStack() as stack:

        def start(port: int = 0, **changes: Any) -> Api:
            return stack.enter_context(Serving(valkey, tmp_path, port, make_settings(**changes)))

        yield start


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    """A server with the usual settings."""
    return start_api()


@pytest.fixture
def start_leader(
    valkey: Server, api_blobs: LocalBlobs, tmp_path: Path
) -> Iterator[Callable[..., FakeLeader]]:
    """Creates stand-ins for leaders, with a ``lease_s`` and a ``pool`` that a test may choose."""
    queues: list[RedisQueue] = []

    def start(pool: str = POOL, lease_s: float = 30.0) -> FakeLeader:
        queues.append(RedisQueue(valkey.url, pool=pool, lease_s=lease_s))
        return FakeLeader(queues[-1], api_blobs, tmp_path)

    yield start
    for queue in queues:
        queue.close()


@pytest.fixture
def api_blobs(tmp_path: Path) -> LocalBlobs:
    """The blob store that a test's servers and stand-ins for leaders share."""
    return LocalBlobs(tmp_path / "blobs")


@pytest.fixture
def leader(start_leader: Callable[..., FakeLeader]) -> FakeLeader:
    """A stand-in for the leader of a group of the pool ``echo``."""
    return start_leader()
