"""The store over connections that break."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import urlsplit

import pytest
import uvloop
from support.valkey import Server

from daybreak_server.adapters.redis.store import RedisStore
from faults.environment.proxy import TcpProxy


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_connections_reset_while_idle_are_not_used(
    server: Server, run: Callable[[Coroutine[Any, Any, Any]], Any]
) -> None:
    """After a reset of all that was open, the very next calls are answered, also those never repeated."""
    port = urlsplit(server.url).port
    assert port is not None

    async def burst(proxy: TcpProxy) -> None:
        store = RedisStore(f"redis://127.0.0.1:{proxy.port}")
        try:
            for _ in range(3):
                await asyncio.gather(*(store.ping() for _ in range(8)))
                assert proxy.open == 8
                await asyncio.to_thread(proxy.cut)
                await asyncio.sleep(0.05)
        finally:
            await store.close()

    with TcpProxy(("127.0.0.1", port)) as proxy:
        run(burst(proxy))
