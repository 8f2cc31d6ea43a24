"""The API, its metrics and `daybreak pools` show a pool's requests, and how many groups these requests need."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

import pytest
from api_support import Api, make_settings
from typer.testing import CliRunner

from daybreak.cli.main import app
from daybreak_server import wiring
from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import GroupRecord, GroupState
from daybreak_server.domain.serving_load import Load
from testkit.valkey import Server
from testkit.waiting import wait_until

POOLS = {"answers": {"workload": "echo-serve", "target_load": 4}}


@pytest.fixture
def publish(valkey: Server) -> Callable[[int], None]:
    """Publishes a number of requests as the demand of another gateway. The demand is valid for a minute."""

    async def once(requests: int) -> None:
        store = RedisStore(valkey.url, target_loads=wiring.target_loads(make_settings(pools=POOLS)))
        try:
            await store.publish_demand("answers", "another", requests, ttl_s=60)
        finally:
            await store.close()

    return lambda requests: asyncio.run(once(requests))


def test_a_pool_shows_its_kind_and_its_requests(
    start_api: Callable[..., Api], publish: Callable[[int], None], valkey: Server
) -> None:
    api = start_api(pools=POOLS, router={"policy": "power_of_two"})

    def shown(name: str = "answers") -> dict[str, object]:
        return api.client.get(f"/v1/pools/{name}").json()

    assert (shown()["kind"], shown()["requests"], shown()["wake"]["phase"]) == ("online", 0, "zero")
    assert (shown("echo")["kind"], "requests" in shown("echo")) == ("jobs", False)
    publish(9)
    wait_until(lambda: shown()["requests"] == 9, 60, "the requests")
    assert shown()["wake"]["phase"] == "detect"
    assert (shown()["requests_waiting"], shown()["groups_needed"], shown()["routing"]) == (
        9,
        3,
        "power_of_two",
    )
    command = ["--url", api.url, "pools", "answers"]
    lines = CliRunner().invoke(app, command).stdout.splitlines()
    assert lines[:2] == [
        "answers (echo-serve, online): 9 requests, 9 of them waiting; they need 3 group(s)",
        "routing policy: power_of_two",
    ]
    with contextlib.closing(RedisQueue(valkey.url, pool="answers")) as queue:
        record = GroupRecord(
            id=GroupId("g-1"),
            state=GroupState.BUSY,
            endpoint="http://h:1",
            capacity=8,
            load=Load(in_flight=4, waiting=2),
        )
        queue.register(record, ttl_s=60)
        wait_until(lambda: shown()["requests_waiting"] == 3, 60, "the load of the group")
        assert "  g-1  busy  1 rank  6 of 8 requests" in CliRunner().invoke(app, command).stdout
        row = "answers\techo-serve\tonline\t0\t0\t9\t1 busy\tready"
        assert row in CliRunner().invoke(app, command[:-1]).stdout.splitlines()
        queue.deregister(record)
    publish(0)
    wait_until(lambda: shown()["requests"] == 0, 60, "the end of the requests")
    assert shown()["wake"]["phase"] == "zero"


def test_metrics_show_the_groups_that_requests_need(
    start_api: Callable[..., Api], publish: Callable[[int], None]
) -> None:
    """Every gateway shows the numbers of requests and groups, whichever gateway has the requests."""
    api = start_api(pools=POOLS)
    publish(9)
    lines = ('daybreak_pool_requests{pool="answers"} 9.0', 'daybreak_groups_needed{pool="answers"} 3.0')
    wait_until(
        lambda: all(line in api.client.get("/metrics").text for line in lines),
        60,
        "the requests in the metrics",
    )
