"""Fixtures for pools on a real Valkey and for groups of one rank. See `testkit.pools` and `testkit.ranks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupState
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.ports.metrics import Meter
from testkit.pools import Pool, make_settings
from testkit.squares import Squares
from testkit.valkey import Server
from testkit.waiting import wait_until


@pytest.fixture
def pools(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Creates pools on the Valkey of the test session, and closes them after the test."""
    created: list[Pool] = []

    def make(**options: Any) -> Pool:
        created.append(Pool(make_settings(valkey, tmp_path, **options)))
        return created[-1]

    yield make
    for pool in created:
        pool.close()


@pytest.fixture
def leader() -> Iterator[Callable[..., Rank]]:
    """Starts groups of one rank as threads, and stops them after the test."""
    started: list[Rank] = []

    def start(pool: Pool, *, on_broken: Callable[[Cause], None] = print, **options: Any) -> Rank:
        rank = wiring.build_rank(pool.settings, pool.name, on_broken=on_broken, **options)
        started.append(rank)
        rank.start()
        return rank

    yield start
    for rank in started:
        rank.stop(timeout_s=5)


@pytest.fixture
def serving(pools: Callable[..., Pool], leader: Callable[..., Rank]) -> Callable[..., tuple[Pool, Rank, str]]:
    """Starts a group that answers requests, and returns its pool, its rank and its URL."""

    def start(
        *, on_broken: Callable[[Cause], None] = print, meter: Meter | None = None, **options: Any
    ) -> tuple[Pool, Rank, str]:
        pool = pools(**{"workload": "echo-serve", **options})
        rank = leader(pool, on_broken=on_broken, meter=meter)
        return pool, rank, ready_endpoint(pool)

    return start


def ready_endpoint(pool: Pool) -> str:
    """The URL of the pool's first group that is ready, once there is one."""

    def ready() -> str | None:
        return next((g.endpoint for g in pool.view().groups if g.state is GroupState.IDLE), None)

    return wait_until(ready, 60, "a group that answers requests")


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    """An HTTP client."""
    with httpx2.Client(timeout=30) as opened:
        yield opened


@pytest.fixture
def bulk_serving(
    serving: Callable[..., tuple[Pool, Rank, str]], tmp_path: Path
) -> Iterator[Callable[..., tuple[Pool, Rank, str]]]:
    """Starts a group that squares the numbers in requests, and those in files of the folder `files`."""
    (tmp_path / "files").mkdir(exist_ok=True)
    Squares.reset()

    def start(**options: Any) -> tuple[Pool, Rank, str]:
        bulk = {"places": {"files": (tmp_path / "files").as_uri()}, **options.pop("bulk", {})}
        return serving(workload="testkit.squares:SPEC", bulk=bulk, **options)

    yield start
    Squares.reset()
