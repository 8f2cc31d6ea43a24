"""Every part is killed in the middle of a run: no accepted task is lost, none is stuck, none ends twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kubernetes.client import V1Pod

from testkit.kubernetes.deployment import WAKE_S, House
from testkit.kubernetes.kube import Kube, ready
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full


def _component(name: str) -> Callable[[House], tuple[Kube, list[V1Pod]]]:
    def find(house: House) -> tuple[Kube, list[V1Pod]]:
        return house.kube, house.kube.pods(f"app.kubernetes.io/component={name}")

    return find


def _head(house: House) -> tuple[Kube, list[V1Pod]]:
    return house.kube, house.kube.heads("echo")


def _keda(house: House) -> tuple[Kube, list[V1Pod]]:
    """Wherever it is installed."""
    every = house.kube.core.list_pod_for_all_namespaces().items
    found = [one for one in every if one.metadata.name.startswith("keda-operator-")]
    return Kube(found[0].metadata.namespace), found


PARTS = {
    "gateway": _component("gateway"),
    "operator": _component("operator"),
    "redis": _component("redis"),
    "keda": _keda,
    "head": _head,
}


@pytest.mark.parametrize("part", PARTS)
def test_killed_in_the_middle(house: House, part: str) -> None:
    """One part is killed without a word while a task runs and one waits: both end well, each once."""
    stories = [
        house.follow(house.submit("echo", {"message": f"{part} {n}", "steps": 80, "step_s": 0.25}))
        for n in range(3)
    ]
    stories[0].at_step(10, timeout_s=WAKE_S)
    kube, victims = PARTS[part](house)
    assert victims, f"there is a {part}"
    say(f"  killing {victims[0].metadata.name}")
    kube.delete_pod(victims[0].metadata.name, force=True)
    late = house.follow(house.submit("echo", {"message": f"after {part}", "steps": 2}))
    for story in (*stories, late):
        done = story.end(timeout_s=WAKE_S)
        assert done.state.value == "succeeded"
        if part in {"gateway", "operator", "keda", "redis"}:
            assert done.attempt == 1, f"the loss of {part} restarts nothing"
    wait_until(
        lambda: any(map(ready, PARTS[part](house)[1])) or part == "head",
        timeout_s=120,
        what=f"another {part}",
    )
