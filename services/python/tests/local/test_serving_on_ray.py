"""A group that answers requests is a gang of Ray Serve like any other: it restarts when its leader dies."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest

from daybreak_server.domain.pools import GroupRecord, GroupState
from testkit.pools import Pool, make_settings
from testkit.system import System
from testkit.valkey import Server
from testkit.waiting import wait_until

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]


@pytest.fixture
def pool(valkey: Server, tmp_path: Path) -> Iterator[Pool]:
    opened = Pool(make_settings(valkey, tmp_path, workload="echo-serve"))
    yield opened
    opened.close()


def test_a_gang_answers_requests_and_a_new_one_takes_its_place(
    systems: Callable[..., System], valkey: Server, pool: Pool
) -> None:
    """When a leader dies, its watchdog deregisters the group, so that no router sends requests to the group."""
    system = systems(
        "up",
        DAYBREAK_REDIS__URL=valkey.url,
        DAYBREAK_POOLS__ECHO__WORKLOAD="echo-serve",
        DAYBREAK_POOLS__ECHO__RANKS="2",
        DAYBREAK_POOLS__ECHO__CPUS_PER_RANK="0.5",
    )
    system.ready(800)

    def ready(*, besides: str = "") -> GroupRecord | None:
        groups = [g for g in pool.view().groups if g.state is GroupState.IDLE and g.id != besides]
        return groups[0] if groups else None

    first = wait_until(ready, 120, "a group")
    answer = httpx2.post(str(first.endpoint), json={"all_ranks": True, "chunks": 2}, timeout=60)
    assert answer.text == "3\n3\n"
    with pytest.raises(httpx2.TransportError):
        httpx2.post(str(first.endpoint), json={"fault": "crash", "fault_rank": 0}, timeout=60)
    wait_until(
        lambda: first.id not in [g.id for g in pool.view().groups], 60, "the first group's record to be gone"
    )
    second = wait_until(lambda: ready(besides=first.id), 300, "a new group")
    assert httpx2.post(str(second.endpoint), json={"all_ranks": True}, timeout=60).text == "3\n"
