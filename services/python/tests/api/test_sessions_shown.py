"""The API and the client's command show the streaming sessions of a pool, and how many groups the sessions need."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from api_support import Api, make_settings
from typer.testing import CliRunner

from daybreak.cli.main import app
from daybreak_server import wiring
from daybreak_server.adapters.redis.sessions.store import RedisSessionStore
from daybreak_server.domain.ids import ulid
from daybreak_server.domain.sessions import NewSession, SessionId
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from testkit.valkey import Server
from testkit.waiting import wait_until

POOL = "simulated-speech"
POOLS = {POOL: {"workload": POOL, "target_load": 1, "drain_s": 0}}


@pytest.fixture
def group(valkey: Server) -> Iterator[Callable[[], None]]:
    """Starts a group of the pool."""
    started: list[Rank] = []

    def start() -> None:
        settings = make_settings(pools=POOLS).model_copy(
            update={"redis": make_settings().redis.model_copy(update={"url": valkey.url})}
        )
        started.append(wiring.build_rank(settings, POOL, on_broken=print))
        started[-1].start()

    yield start
    for rank in started:
        rank.stop(timeout_s=10)


def open_session(valkey: Server) -> SessionId:
    """Open a session, as another gateway would."""
    new = NewSession(id=SessionId(f"{POOL}_{ulid()}"), pool=POOL, tenant="default", source="en", target="de")

    async def once() -> None:
        store = RedisSessionStore(valkey.url, limits=wiring.session_limits(make_settings(pools=POOLS)))
        try:
            await store.open_session(new)
        finally:
            await store.close()

    asyncio.run(once())
    return new.id


def test_a_pool_shows_its_sessions_and_the_groups_that_they_need(
    start_api: Callable[..., Api], group: Callable[[], None], valkey: Server
) -> None:
    api = start_api(pools=POOLS)

    def shown() -> dict[str, object]:
        return api.client.get(f"/v1/pools/{POOL}").json()

    none = {"open": 0, "waiting": 0, "lag_ms": 0.0, "latency_multiplier": 1, "full": False}
    assert (shown()["kind"], shown()["sessions"], shown()["groups_needed"]) == ("sessions", none, 0)
    assert "requests" not in shown()
    for _ in range(2):
        open_session(valkey)
    assert shown()["sessions"] == {**none, "open": 2, "waiting": 2}
    wait_until(lambda: shown()["groups_needed"] == 2, 60, "the groups that two sessions need")
    group()
    wait_until(lambda: shown()["sessions"] == {**none, "open": 2}, 60, "a group with both sessions")

    def reports() -> list[tuple[str, int]]:
        found = api.client.get(f"/v1/pools/{POOL}").json()["groups"]
        return [(group["state"], group.get("load", {}).get("sessions", 0)) for group in found]

    wait_until(lambda: reports() == [("busy", 2)], 60, "the group's report")
    lines = CliRunner().invoke(app, ["--url", api.url, "pools", POOL]).stdout.splitlines()
    assert "2 sessions; they need 2 group(s); lag 0.00 s" in lines[0]
    assert any("2 sessions" in line for line in lines[1:])
