"""Fixtures: a Daybreak without Ray, and a collector that receives its traces."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daybreak_server import wiring
from daybreak_server.api.server import ApiServer
from daybreak_server.settings.tree import Settings
from testkit.otlp_collector import Collector, otlp_collector
from testkit.pools import make_settings
from testkit.valkey import Server
from testkit.waiting import wait_until

# The generators of dashboards and alerts are in the folder tools, which is in no package.
sys.path.insert(0, str(Path(__file__).parents[4] / "tools"))
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with otlp_collector() as found:
        yield found


@pytest.fixture
def traced_settings(valkey: Server, tmp_path: Path, collector: Collector) -> Callable[..., Settings]:
    """Makes settings with a pool `echo`, and with tracing that records every trace. ``tracing`` changes the settings of
    tracing; all other arguments are settings of the pool."""

    def make(*, tracing: dict[str, Any] | None = None, **pool: Any) -> Settings:
        settings = make_settings(valkey, tmp_path, **pool)
        tree = settings.model_dump(mode="json", exclude_unset=True)
        every = {"enabled": True, "endpoint": collector.url, "sample_ratio": 1.0, "max_per_s": 1e6}
        tree["tracing"] = every | (tracing or {})
        return Settings.model_validate(tree)

    return make


@pytest.fixture
def gateway() -> Iterator[Callable[[Settings], httpx2.Client]]:
    """Starts a gateway with the settings, and returns a client of it."""
    with contextlib.ExitStack() as stack:

        def start(settings: Settings) -> httpx2.Client:
            server = ApiServer(wiring.build_app(settings), host="127.0.0.1", port=0)
            thread = threading.Thread(target=server.run, name="gateway")
            thread.start()

            def stop() -> None:
                server.should_exit = True
                thread.join(60)

            stack.callback(stop)
            wait_until(lambda: server.started, 60, "the gateway to start")
            port = server.servers[0].sockets[0].getsockname()[1]
            url = f"http://127.0.0.1:{port}"
            return stack.enter_context(httpx2.Client(base_url=url, timeout=60, verify=False))

        yield start
