"""A group that answers requests is removed only once it refuses new ones and has ended those that it had."""

from __future__ import annotations

from typing import Any

import pytest
from operator_samples import NOW, group, head, hosts, observed, only_action, pool, ray_cluster

from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView
from daybreak_server.domain.serving_load import Load
from daybreak_server.operator.crd.resource import Drain, PoolStatus
from daybreak_server.operator.planner.actions import MarkDrain, ScaleDown
from daybreak_server.operator.planner.plan import plan
from daybreak_server.operator.planner.preconditions import refusal

DRAINS = PoolStatus(drains=(Drain(group="s", since=NOW, deadline=NOW + 45),))


def serving(state: GroupState, *, drain: bool = True, **load: int) -> GroupRecord:
    return group("s", "a0", state=state, drain=drain, endpoint="http://a0:1", load=Load(**load))


def removals(served: GroupRecord, *, now: float = NOW) -> list[Any]:
    video = pool(replicas=0, status=DRAINS)
    rc = ray_cluster(video, 1)
    observation = observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=[served], now=now)
    return [action for action in plan(observation).actions if isinstance(action, ScaleDown)]


@pytest.mark.parametrize(
    "served",
    [
        serving(GroupState.IDLE),  # it has not seen its mark, so a request may be on its way
        serving(GroupState.BUSY, in_flight=1),
        serving(GroupState.DRAINING, in_flight=1),
        serving(GroupState.DRAINING, waiting=1),
    ],
)
def test_a_group_that_has_or_takes_requests_stays(served: GroupRecord) -> None:
    assert removals(served) == []


def test_a_group_that_refuses_requests_and_has_none_is_removed() -> None:
    assert len(removals(serving(GroupState.DRAINING))) == 1


def test_a_group_is_marked_while_it_takes_requests() -> None:
    video = pool(replicas=0)
    rc = ray_cluster(video, 1)
    served = [serving(GroupState.IDLE, drain=False)]
    observation = observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=served)
    assert only_action(observation, MarkDrain).group == "s"


def test_fresh_reads_decide_too() -> None:
    rc = ray_cluster(pool(replicas=1), 1)
    pods = (head(rc), *hosts(rc, "a"))
    remove = ScaleDown(
        cluster=rc, replicas=0, named_pods=("a0",), hosts=("a0",), max_remaining=0, workers_to_delete=("a0",)
    )

    def refused(served: GroupRecord) -> str | None:
        return refusal(remove, cluster=rc, pods=pods, store=PoolView(name="video", groups=(served,)))

    assert "not drained" in (refused(serving(GroupState.IDLE)) or "")
    assert "not drained" in (refused(serving(GroupState.DRAINING, in_flight=1)) or "")
    assert refused(serving(GroupState.DRAINING)) is None
