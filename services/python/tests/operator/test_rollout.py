"""What the plan does while a pool is renewed: groups move from one RayCluster to another."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_samples import NOW, busy, done, group, head, hosts, observed, one, pool, ray_cluster

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
from daybreak_server.ports.cluster import Waiting

AWAY = Cause(reason="RedisUnreachable", message="Connection refused")


def test_a_new_template_waits_for_its_head_then_takes_one_group_at_a_time() -> None:
    """An image that cannot be pulled costs no group."""
    old = ray_cluster(pool(replicas=2), 2, created_at=NOW - 5000)
    of = pool(replicas=2, model="/models/new")
    new = ray_cluster(of, 0, uid="new-uid", created_at=NOW - 50)
    groups = [group("g", "a0"), group("h", "b0")]
    pods = [head(old), *hosts(old, "a", "b")]
    assert one(observed(of, old, pods=pods, groups=groups), CreateCluster)
    not_yet = observed(of, old, new, pods=[*pods, head(new, ready=False)], groups=groups)
    assert done(not_yet, MarkDrain) == []
    ready = observed(of, old, new, pods=[*pods, head(new)], groups=groups)
    assert len(done(ready, MarkDrain)) == 1
    half = observed(of, replace(old, replicas=1), new, pods=[*pods[:2], head(new)], groups=groups[:1])
    assert one(half, ScaleUp).cluster == new
    slow = replace(half, serve={name: replace(view, target=4) for name, view in half.serve.items()})
    kinds = [type(action) for action in plan(slow).actions]
    assert kinds.index(ScaleUp) < kinds.index(ScaleApplication), "a head that hangs holds no other up"
    last = observed(of, replace(old, replicas=0), replace(new, replicas=2), pods=[head(old), head(new)])
    assert one(last, DeleteCluster).cluster.name == old.name


def _half_renewed(**waking: Any) -> tuple[Observed, Observed]:
    """One group is of the old, one wakes on the new: as all answers, and when the new head does not once."""
    old = ray_cluster(pool(replicas=2), 1, created_at=NOW - 5000)
    of = pool(replicas=2, model="/models/new")
    new = ray_cluster(of, 1, uid="new-uid", created_at=NOW - 50)
    groups = [busy("g", "a0"), group("h", "n0", state=GroupState.LOADING)]
    pods = [head(old), *hosts(old, "a"), *hosts(new, "n")]
    look = observed(of, old, new, pods=[*pods, head(new)], groups=groups)
    silent = {old.name: look.serve[old.name]}
    return look, replace(
        observed(of, old, new, pods=[*pods, head(new, **waking)], groups=groups), serve=silent
    )


def test_a_new_head_that_misses_an_answer_costs_no_group_that_wakes_on_it() -> None:
    """Late once or unready for a moment: nobody drains, goes or grows. One whose template cannot run gives way."""
    heard, silent = _half_renewed()
    _, unready = _half_renewed(ready=False)
    for look in (heard, silent, unready, replace(unready, store=None, store_error=AWAY)):
        assert done(look, MarkDrain) == done(look, ScaleDown) == done(look, ScaleUp) == []
    failed = replace(heard, serve={n: replace(v, status="DEPLOY_FAILED") for n, v in heard.serve.items()})
    _, crashes = _half_renewed(ready=False, waiting=Waiting(reason="CrashLoopBackOff"))
    for look in (failed, crashes):
        assert (one(look, MarkDrain).group, one(look, ScaleUp).replicas) == ("h", 2)


def test_while_the_new_head_is_silent_it_takes_no_place_of_the_old() -> None:
    """Fewer groups are wanted meanwhile: the one that works stays, the one that wakes goes."""
    _, silent = _half_renewed()
    fewer = replace(silent, pool=pool(replicas=1, model="/models/new"))
    assert one(fewer, MarkDrain).group == "h"


@pytest.mark.parametrize(("over", "grows"), [(-300.0, False), (50.0, False), (70.0, True)])
def test_a_dead_nodes_pod_does_not_stop_a_rollout(over: float, grows: bool) -> None:
    """Nobody ends it, so it stays; a minute after its grace its hosts are no longer waited for."""
    old = ray_cluster(pool(replicas=1), 0, created_at=NOW - 5000)
    of = pool(replicas=1, model="/models/new")
    new = ray_cluster(of, 0, uid="new-uid", created_at=NOW - 50)
    dead = hosts(old, "a", ready=False, terminating=True, ends_at=NOW - over)
    look = observed(of, old, new, pods=[head(old), *dead, head(new)])
    assert [grow.cluster for grow in done(look, ScaleUp)] == ([new] if grows else [])
