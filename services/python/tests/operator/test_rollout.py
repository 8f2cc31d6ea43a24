"""The plan during a rollout, when groups move from one RayCluster to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_samples import (
    NOW,
    actions_of,
    busy,
    group,
    head,
    hosts,
    observed,
    only_action,
    pool,
    ray_cluster,
)

from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import GroupState
from daybreak_server.operator.planner.actions import (
    CreateCluster,
    DeleteCluster,
    MarkDrain,
    ScaleApplication,
    ScaleDown,
    ScaleUp,
)
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan
from daybreak_server.ports.cluster import WaitingReason

REDIS_DOWN = Cause(reason="RedisUnreachable", message="Connection refused")


def test_a_rollout_waits_for_the_new_head_then_moves_one_group_at_a_time() -> None:
    """If the new image cannot be pulled, the old groups keep running."""
    old = ray_cluster(pool(replicas=2), 2, created_at=NOW - 5000)
    video = pool(replicas=2, model="/models/new")
    new = ray_cluster(video, 0, uid="new-uid", created_at=NOW - 50)
    groups = [group("g", "a0"), group("h", "b0")]
    pods = [head(old), *hosts(old, "a", "b")]
    assert only_action(observed(video, old, pods=pods, groups=groups), CreateCluster)
    not_yet = observed(video, old, new, pods=[*pods, head(new, ready=False)], groups=groups)
    assert actions_of(not_yet, MarkDrain) == []
    ready = observed(video, old, new, pods=[*pods, head(new)], groups=groups)
    assert len(actions_of(ready, MarkDrain)) == 1
    half = observed(video, replace(old, replicas=1), new, pods=[*pods[:2], head(new)], groups=groups[:1])
    assert only_action(half, ScaleUp).cluster == new
    slow = replace(half, serve={name: replace(view, target=4) for name, view in half.serve.items()})
    kinds = [type(action) for action in plan(slow).actions]
    assert kinds.index(ScaleUp) < kinds.index(ScaleApplication), "a hanging head must not delay a ScaleUp"
    last = observed(video, replace(old, replicas=0), replace(new, replicas=2), pods=[head(old), head(new)])
    assert only_action(last, DeleteCluster).cluster.name == old.name


def _half_renewed(**waking: Any) -> tuple[Observed, Observed]:
    """Return two observations of one old group and one new group that is starting.

    In the first observation, all heads answer. In the second, the new head is silent.
    """
    old = ray_cluster(pool(replicas=2), 1, created_at=NOW - 5000)
    video = pool(replicas=2, model="/models/new")
    new = ray_cluster(video, 1, uid="new-uid", created_at=NOW - 50)
    groups = [busy("g", "a0"), group("h", "n0", state=GroupState.LOADING)]
    pods = [head(old), *hosts(old, "a"), *hosts(new, "n")]
    observation = observed(video, old, new, pods=[*pods, head(new)], groups=groups)
    silent = {old.name: observation.serve[old.name]}
    return observation, replace(
        observed(video, old, new, pods=[*pods, head(new, **waking)], groups=groups), serve=silent
    )


def test_a_new_head_that_misses_an_answer_costs_no_starting_group() -> None:
    """A short silence changes nothing. If the new head fails or crashes, its groups return to the old head."""
    answering, silent = _half_renewed()
    _, unready = _half_renewed(ready=False)
    for observation in (answering, silent, unready, replace(unready, store=None, store_error=REDIS_DOWN)):
        assert (
            actions_of(observation, MarkDrain)
            == actions_of(observation, ScaleDown)
            == actions_of(observation, ScaleUp)
            == []
        )
    failed = replace(
        answering, serve={n: replace(v, status="DEPLOY_FAILED") for n, v in answering.serve.items()}
    )
    _, crashes = _half_renewed(ready=False, waiting=WaitingReason(reason="CrashLoopBackOff"))
    for observation in (failed, crashes):
        assert (only_action(observation, MarkDrain).group, only_action(observation, ScaleUp).replicas) == (
            "h",
            2,
        )


def test_a_silent_new_head_takes_no_room_from_the_old_groups() -> None:
    """If fewer groups are wanted, the busy old group stays and the starting group drains."""
    _, silent = _half_renewed()
    fewer = replace(silent, pool=pool(replicas=1, model="/models/new"))
    assert only_action(fewer, MarkDrain).group == "h"


@pytest.mark.parametrize(("overdue_s", "grows"), [(-300.0, False), (50.0, False), (70.0, True)])
def test_a_dead_nodes_pod_does_not_stop_a_rollout(overdue_s: float, grows: bool) -> None:
    """The pod of a dead node never terminates. The plan stops waiting a minute after the pod's grace period."""
    old = ray_cluster(pool(replicas=1), 0, created_at=NOW - 5000)
    video = pool(replicas=1, model="/models/new")
    new = ray_cluster(video, 0, uid="new-uid", created_at=NOW - 50)
    dead = hosts(old, "a", ready=False, terminating=True, ends_at=NOW - overdue_s)
    observation = observed(video, old, new, pods=[head(old), *dead, head(new)])
    assert [grow.cluster for grow in actions_of(observation, ScaleUp)] == ([new] if grows else [])
