"""The API, its metrics and the client's command show the requests of a pool, and the groups that they need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from api_support import Api, make_settings
from typer.testing import CliRunner

from daybreak.cli.main import app
from daybreak_server import wiring
from daybreak_server.adapters.redis.store import RedisStore
from testkit.valkey import Server
from testkit.waiting import wait_until

POOLS = {"answers": {"workload": "echo-serve", "target_load": 4}}


@pytest.fixture
def publish(valkey: Server) -> Callable[[int], None]:
    """Publishes the demand of another gateway, for a minute."""

    async def once(requests: int) -> None:
        store = RedisStore(valkey.url, target_loads=wiring.target_loads(make_settings(pools=POOLS)))
        try:
            await store.publish_demand("answers", "another", requests, ttl_s=60)
        finally:
            await store.close()

    return lambda requests: asyncio.run(once(requests))


def test_a_pool_shows_its_kind_and_its_requests(
    start_api: Callable[..., Api], publish: Callable[[int], None]
) -> None:
    api = start_api(pools=POOLS)

    def shown(name: str = "answers") -> dict[str, object]:
        return api.client.get(f"/v1/pools/{name}").json()

    assert (shown()["kind"], shown()["requests"], shown()["wake"]["phase"]) == ("online", 0, "zero")
    assert (shown("echo")["kind"], "requests" in shown("echo")) == ("jobs", False)
    publish(9)
    wait_until(lambda: shown()["requests"] == 9, 60, "the requests")
    assert shown()["wake"]["phase"] == "detect"
    assert "requests: 9" in CliRunner().invoke(app, ["--url", api.url, "pools", "answers"]).stdout
    publish(0)
    wait_until(lambda: shown()["requests"] == 0, 60, "the end of the requests")
    assert shown()["wake"]["phase"] == "zero"


def test_metrics_show_the_groups_that_requests_need(
    start_api: Callable[..., Api], publish: Callable[[int], None]
) -> None:
    """Each gateway's ticks keep the number, so it does not matter which gateway has the requests."""
    api = start_api(pools=POOLS)
    publish(9)
    lines = ('daybreak_pool_requests{pool="answers"} 9.0', 'daybreak_groups_needed{pool="answers"} 3.0')
    wait_until(
        lambda: all(line in api.client.get("/metrics").text for line in lines),
        60,
        "the requests in the metrics",
    )
