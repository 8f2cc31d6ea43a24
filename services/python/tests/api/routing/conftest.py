"""Fixtures for the router: a real gateway, and real HTTP servers in place of groups.

Each server has its own process.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from testkit.valkey import Server

sys.path.insert(0, str(Path(__file__).parents[1]))
sys.path.insert(0, str(Path(__file__).parent))

from api_support import Api

from daybreak_server.adapters.redis.queue import RedisQueue
from testkit.http_backend import Backend
from verification.faults.environment.proxy import TcpProxy

POOL = "answers"


class Groups:
    """Registers backends as groups of the pool, as the leaders of groups would."""

    def __init__(self, url: str, folder: Path) -> None:
        self._queue = RedisQueue(url, pool=POOL, lease_s=30.0)
        self._folder = folder
        self.backends: list[Backend] = []

    def start(self, number: int = 1, *, capacity: int | None = None) -> list[Backend]:
        """Start backends and wait until they listen; they are not registered yet."""
        started = [Backend(self._folder, capacity=capacity) for _ in range(number)]
        self.backends += started
        return [backend.wait_ready() for backend in started]

    def register(self, *backends: Backend, ttl_s: float = 60.0, **changes: Any) -> None:
        for backend in backends:
            self._queue.register(backend.record(**changes), ttl_s=ttl_s)

    def deregister(self, backend: Backend) -> None:
        self._queue.deregister(backend.record())

    def close(self) -> None:
        for backend in self.backends:
            backend.kill()
        self._queue.close()


@pytest.fixture
def groups(valkey: Server, tmp_path: Path) -> Iterator[Groups]:
    found = Groups(valkey.url, tmp_path)
    yield found
    found.close()


@pytest.fixture
def cuttable() -> Iterator[Callable[[Backend], TcpProxy]]:
    """Puts a proxy between gateways and a backend that is not registered yet. The proxy can break their connections."""
    with ExitStack() as stack:

        def put(backend: Backend) -> TcpProxy:
            proxy = stack.enter_context(TcpProxy(("127.0.0.1", backend.port)))
            backend.endpoint = f"http://127.0.0.1:{proxy.port}"
            return proxy

        yield put


@pytest.fixture
def start_gateway(start_api: Callable[..., Api]) -> Callable[..., Api]:
    """Starts gateways with one serving pool, ``answers``.

    The argument ``pool`` has settings of this pool. The other arguments are settings of the router.
    """

    def start(*, pool: dict[str, Any] | None = None, **router: Any) -> Api:
        pools = {POOL: {"workload": "echo-serve", **(pool or {})}, "echo": {"workload": "echo"}}
        return start_api(pools=pools, router=router)

    return start
