"""The durations of a wake: which clock counts, and why the phases add up to the total."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from operator_samples import NOW, group, head, hosts, observed, pool, ray_cluster

from daybreak_server.domain.pools import GroupState, PoolView
from daybreak_server.operator.crd.resource import PoolStatus, WakeStatus
from daybreak_server.operator.planner.observed import Observed
from daybreak_server.operator.planner.plan import plan

AT_RAY = WakeStatus(
    phase="ray", since=NOW - 10, began=NOW - 20, seconds={"detect": 2.0, "pods": 5.0, "image": 3.0}
)
OWN = {"process_group": 1.0, "model": 4.0, "warm_up": 2.0}


def observation(before: WakeStatus, *, now: float = NOW, **group_fields: Any) -> Observed:
    """An observation of a pool that wants one group.

    The pods of the group run. The store has a record of the group only if ``group_fields`` are given.
    """
    video = pool(replicas=1, status=PoolStatus(wake=before))
    rc = ray_cluster(video, 1)
    groups = [group("g", "a0", **group_fields)] if group_fields else []
    return observed(video, rc, pods=[head(rc), *hosts(rc, "a")], groups=groups, live=1, now=now)


def ms(timestamp: float) -> int:
    """Convert seconds to milliseconds, as in a group's record."""
    return round(timestamp * 1000)


def phases(wake: WakeStatus) -> float:
    """The sum of the durations of all phases."""
    return sum(seconds for name, seconds in wake.seconds.items() if name != "total")


def test_a_wake_ends_when_the_group_was_ready_not_when_it_was_observed() -> None:
    """The phase `ray` ends when the group's own phases begin."""
    wake = plan(observation(AT_RAY, since_ms=ms(NOW - 1.5), wake=OWN)).status.wake
    assert wake.seconds == {
        **AT_RAY.seconds,
        "ray": pytest.approx(1.5),
        **OWN,
        "total": pytest.approx(18.5),
    }
    assert phases(wake) == pytest.approx(wake.seconds["total"])
    assert (wake.phase, wake.since) == ("ready", NOW - 1.5)


@pytest.mark.parametrize(
    ("since_ms", "ray_s", "counted"),
    [(0, 3.0, True), (ms(NOW + 5), 3.0, True), (ms(NOW - 21), 10.0, False)],
    ids=["absent", "later than now", "before the wake"],
)
def test_an_impossible_time_is_ignored(since_ms: int, ray_s: float, counted: bool) -> None:
    """The time of the observation counts instead. Phases of an older group are not part of this wake."""
    wake = plan(observation(AT_RAY, since_ms=since_ms, wake=OWN)).status.wake
    assert (wake.since, wake.seconds["total"]) == (NOW, 20.0)
    assert wake.seconds["ray"] == ray_s
    assert ("model" in wake.seconds) is counted
    assert phases(wake) == pytest.approx(20.0)


def test_a_starting_group_is_followed_by_its_own_clock() -> None:
    """The group's record has the start of its present phase and the durations of its past phases."""
    loading = observation(
        AT_RAY, state=GroupState.LOADING, phase="model", since_ms=ms(NOW - 1), wake={"process_group": 2.0}
    )
    half = plan(loading).status.wake
    assert (half.phase, half.since) == ("model", NOW - 1)
    assert half.seconds == {**AT_RAY.seconds, "ray": 7.0, "process_group": 2.0}
    own = {"process_group": 2.0, "model": 1.5, "warm_up": 0.7}
    whole = plan(observation(half, now=NOW + 2, since_ms=ms(NOW + 1.2), wake=own)).status.wake
    assert whole.seconds == {**half.seconds, **own, "total": pytest.approx(21.2)}
    assert phases(whole) == pytest.approx(21.2)


def test_the_first_ready_group_ends_the_wake() -> None:
    """The durations of a later group are not reported."""
    first = observation(AT_RAY, since_ms=ms(NOW - 1.5), wake=OWN)
    later = group("later", "a0", since_ms=ms(NOW - 0.5), wake={**OWN, "model": 5.0})
    assert first.store is not None
    both = replace(first, store=replace(first.store, groups=(later, *first.store.groups)))
    assert plan(both).status.wake == plan(first).status.wake


def test_detect_includes_the_wait_before_the_first_observation() -> None:
    """The total includes this wait, so the phases must include it too."""
    video = pool(status=PoolStatus(wake=WakeStatus()))
    rc = ray_cluster(video, 0)
    queue = PoolView(name="video", queued=1, live=1, oldest_wait_s=1.5)
    first = plan(observed(video, rc, pods=[head(rc)], store=queue)).status.wake
    assert (first.phase, first.since, first.began) == ("detect", NOW, NOW - 1.5)
    scaled = pool(replicas=1, status=PoolStatus(wake=first))
    then = plan(observed(scaled, rc, pods=[head(rc)], store=queue, now=NOW + 2)).status.wake
    assert (then.phase, then.seconds) == ("pods", {"detect": 3.5})


def test_a_restarting_group_begins_no_wake_from_zero() -> None:
    """If the tasks' wait of two hours counted as a wake, a wake would seem to take two hours. Groups would then start
    two hours before delayed tasks are due."""
    ready = WakeStatus(phase="ready", since=NOW - 500, began=NOW - 520, seconds={"total": 20.0})
    video = pool(replicas=1, status=PoolStatus(wake=ready))
    rc = ray_cluster(video, 1)
    restarting = group("g", "a0", state=GroupState.LOADING, phase="model", since_ms=ms(NOW))
    backlog = PoolView(name="video", queued=50, live=50, oldest_wait_s=7200.0, groups=(restarting,))
    wake = plan(observed(video, rc, pods=[head(rc), *hosts(rc, "a")], store=backlog)).status.wake
    assert (wake.phase, wake.began, wake.seconds) == ("model", NOW, {})
