"""Pools on a real Valkey, and groups of one rank to serve them; see `support.pools` and `support.ranks`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.pools import Pool, make_settings
from support.valkey import Server

from daybreak_server import wiring
from daybreak_server.domain.causes import Cause
from daybreak_server.gang.member import Member


@pytest.fixture
def pools(valkey: Server, tmp_path: Path) -> Iterator[Callable[..., Pool]]:
    """Makes pools on the session's Valkey; closes them."""
    made: list[Pool] = []

    def make(**options: Any) -> Pool:
        made.append(Pool(make_settings(valkey, tmp_path, **options)))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def leader() -> Iterator[Callable[..., Member]]:
    """Starts groups of one rank, as threads; stops them."""
    made: list[Member] = []

    def start(pool: Pool, *, on_broken: Callable[[Cause], None] = print) -> Member:
        member = wiring.build_member(pool.settings, pool.name, on_broken=on_broken)
        made.append(member)
        member.start()
        return member

    yield start
    for one in made:
        one.stop(timeout_s=5)
