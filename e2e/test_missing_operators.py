"""KEDA's or KubeRay's operator is away: tasks are taken and wait, and all goes on by itself when it is back.

The operators are scaled to zero for a moment, and everything that they keep elsewhere in the cluster waits too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.diagnosis_asserts import named, recovered
from testkit.kubernetes.deployment import WAKE_S, House
from testkit.kubernetes.kube import Kube, selector
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("operator", "reason", "words"),
    [("keda-operator", "NotAsked", "KEDA"), ("kuberay-operator", "KubeRaySilent", "KubeRay")],
)
def test_an_operator_that_is_away(house: House, operator: str, reason: str, words: str) -> None:
    """It is named, the task is taken and waits without a strike, and runs when it is back."""
    house.at_zero("echo", head=True)
    with _away(house, operator):
        task = house.submit("echo", {"message": f"waits for {operator}", "steps": 2})
        named(house, "echo", reason=reason, words=words)
        assert house.client.get(task).state.value == "queued"
    done = house.follow(task).end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)
    recovered(house, "echo")


@contextmanager
def _away(house: House, operator: str) -> Iterator[None]:
    """Scaled to zero until the context ends, and then to as many pods as before."""
    found = house.kube.deployment(operator)
    there = Kube(found.metadata.namespace)
    say(f"  {operator} of {there.namespace} goes")
    house.kube.scale(found, 0)
    try:
        wait_until(lambda: not there.pods(selector(found)), timeout_s=60, what=f"the end of {operator}")
        yield
    finally:
        house.kube.scale(found, found.spec.replicas)
        say(f"  {operator} comes back")
