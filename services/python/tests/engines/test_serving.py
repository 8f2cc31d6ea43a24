"""A group of one rank answers HTTP requests, refuses what it cannot take, and leaves without losing an answer."""

from __future__ import annotations

from collections.abc import Callable

import httpx2 as httpx

from daybreak_server.domain.pools import GroupState
from daybreak_server.engines.gang.rank_lifecycle import Rank
from testkit.pools import Pool
from testkit.waiting import wait_until


def endpoint(pool: Pool) -> str:
    """The endpoint of the pool's only group, once it is ready."""

    def ready() -> str | None:
        groups = pool.view().groups
        return groups[0].endpoint if groups and groups[0].state is GroupState.IDLE else None

    return wait_until(ready, 30, "a group that answers")


def test_a_group_answers_a_request_and_its_record_says_where(
    pools: Callable[..., Pool], leader: Callable[..., Rank]
) -> None:
    pool = pools(workload="echo-serve")
    leader(pool)
    url = endpoint(pool)
    answer = httpx.get(f"{url}/v1/any/path%20here?a=1&b=2", headers={"x-own": "1"})
    assert answer.status_code == 200
    shown = answer.json()
    assert (shown["method"], shown["path"], shown["query"]) == ("GET", "/v1/any/path here", "a=1&b=2")
    assert shown["headers"]["x-own"] == "1"
    (group,) = pool.view().groups
    assert (group.models, group.capacity) == (("echo",), 64)
    assert group.load is not None
    assert group.load.in_flight == 0
