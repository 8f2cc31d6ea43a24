"""Scripted faults for alerts whose causes exist only on Kubernetes.

A fault is a context manager: inside it something is wrong, and after it everything is as before. It yields a function
that does what clients do during the fault. The test calls the function again and again while it waits for the alerts.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.kube import SCALED
from testkit.kubernetes.release import NAME

During = Callable[[], object]
Script = Callable[[Deployment], Iterator[During]]
FaultContext = Callable[[Deployment], AbstractContextManager[During]]
_PAUSED = "autoscaling.keda.sh/paused"


@dataclass(frozen=True)
class Fault:
    """What is wrong, and the alerts that it must set off."""

    name: str
    alerts: tuple[str, ...]
    context: FaultContext
    pool: str = "echo"
    """The pool that the alerts name, if they name one."""


FAULTS: list[Fault] = []


def fault(*alerts: str, pool: str = "echo") -> Callable[[Script], FaultContext]:
    """Register a generator function as the fault that must set off these alerts."""

    def register(function: Script) -> FaultContext:
        context = contextmanager(function)
        FAULTS.append(Fault(function.__name__, alerts, context, pool))
        return context

    return register


def nothing() -> None:
    """Clients do nothing during the fault."""


@fault("DaybreakOperatorFails", "DaybreakPoolUnhealthy")
def the_spec_of_a_pool_is_unreadable(deployment: Deployment) -> Iterator[During]:
    """Kubernetes accepts a time zone that does not exist. After each change of the pool, a step of
    the operator fails."""
    zones = itertools.cycle(["Berlin", "Paris"])

    def change() -> None:
        window = {"from": "08:00", "to": "18:00", "timeZone": next(zones), "groups": 1}
        deployment.kube.patch_pool("echo", {"warmSchedule": [window]})

    change()
    try:
        yield change
    finally:
        deployment.kube.patch_pool("echo", {"warmSchedule": None})


@fault("DaybreakKedaErrors")
def keda_cannot_reach_redis(deployment: Deployment) -> Iterator[During]:
    """The trigger of a pool has the address of a server that does not exist."""
    (scaled,) = [
        item for item in deployment.kube.custom_objects(SCALED) if item["metadata"]["name"] == "echo"
    ]
    triggers = scaled["spec"]["triggers"]
    wrong = {**triggers[0], "metadata": {**triggers[0]["metadata"], "address": f"{NAME}-redis:1"}}
    deployment.kube.patch_scaled_object("echo", {"spec": {"triggers": [wrong, *triggers[1:]]}})
    try:
        yield nothing
    finally:
        deployment.kube.patch_scaled_object("echo", {"spec": {"triggers": triggers}})


@fault("DaybreakNotScaling")
def keda_is_paused(deployment: Deployment) -> Iterator[During]:
    """A task waits in a pool at zero, because KEDA does not scale a pool whose ScaledObject is paused."""
    deployment.kube.patch_scaled_object("echo", {"metadata": {"annotations": {_PAUSED: "true"}}})
    try:
        task = deployment.submit("echo", {"message": "waits for KEDA", "steps": 2})
        yield nothing
    finally:
        deployment.kube.patch_scaled_object("echo", {"metadata": {"annotations": {_PAUSED: None}}})
    assert deployment.follow(task).wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"


@fault("DaybreakOperatorAbsent")
def the_operator_is_gone(deployment: Deployment) -> Iterator[During]:
    """The operator's Deployment has no pod."""
    kube = deployment.kube
    operator = kube.apps.read_namespaced_deployment(f"{NAME}-operator", kube.namespace)
    kube.scale(operator, 0)
    try:
        yield nothing
    finally:
        kube.scale(operator, 1)


@fault("DaybreakOperatorStuck", pool="video")
def a_pool_is_not_planned(deployment: Deployment) -> Iterator[During]:
    """The operator reconciles a pool at zero only once a minute, and this test shortens the alert's limit to less than
    a minute.

    A change of the pool makes the operator reconcile it at once, which ends the alert.
    """
    deployment.wait_for_zero("video", head=False)
    deployment.kube.touch_pool("video")
    yield nothing
    deployment.kube.touch_pool("video")


@fault("DaybreakOperatorBehind")
def a_head_hangs(deployment: Deployment) -> Iterator[During]:
    """Each step of the operator waits for a head that does not answer, so the next step begins seconds late."""
    (head,) = deployment.kube.heads("echo")
    deployment.kube.signal(head.metadata.name, "dashboard/dashboard.py", "STOP")
    try:
        yield lambda: deployment.kube.touch_pool("echo")
    finally:
        deployment.kube.signal(head.metadata.name, "dashboard/dashboard.py", "CONT")
