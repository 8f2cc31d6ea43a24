"""Fixtures for pools on a real Valkey and for groups of one rank. See `testkit.pools` and `testkit.ranks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.engines.gang.rank_lifecycle import Rank
from testkit.pools import Pool, make_settings
from testkit.valkey import Server


@pytest.fixture
def pools(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Creates pools on the session's Valkey, and closes them after the test."""
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

    def start(pool: Pool, *, on_broken: Callable[[Cause], None] = print) -> Rank:
        rank = wiring.build_rank(pool.settings, pool.name, on_broken=on_broken)
        started.append(rank)
        rank.start()
        return rank

    yield start
    for rank in started:
        rank.stop(timeout_s=5)
