"""Any component may be killed while tasks run: no accepted task is lost or stuck, and none ends twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kubernetes.client import V1Pod

from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.kube import Kube, ready
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full


def _component(name: str) -> Callable[[Deployment], tuple[Kube, list[V1Pod]]]:
    def find(deployment: Deployment) -> tuple[Kube, list[V1Pod]]:
        return deployment.kube, deployment.kube.pods(f"app.kubernetes.io/component={name}")

    return find


def _head(deployment: Deployment) -> tuple[Kube, list[V1Pod]]:
    return deployment.kube, deployment.kube.heads("echo")


def _keda(deployment: Deployment) -> tuple[Kube, list[V1Pod]]:
    """KEDA's operator, in any namespace."""
    pods = deployment.kube.core.list_pod_for_all_namespaces().items
    operators = [pod for pod in pods if pod.metadata.name.startswith("keda-operator-")]
    return Kube(operators[0].metadata.namespace), operators


COMPONENTS = {
    "gateway": _component("gateway"),
    "operator": _component("operator"),
    "redis": _component("redis"),
    "keda": _keda,
    "head": _head,
}


@pytest.mark.parametrize("component", COMPONENTS)
def test_tasks_survive_the_kill_of_a_component(deployment: Deployment, component: str) -> None:
    """A pod of one component is force-deleted while tasks run or wait. Each task still succeeds, and only once."""
    timelines = [
        deployment.follow(
            deployment.submit("echo", {"message": f"{component} {n}", "steps": 80, "step_s": 0.25})
        )
        for n in range(3)
    ]
    timelines[0].wait_for_step(10, timeout_s=WAKE_S)
    kube, victims = COMPONENTS[component](deployment)
    assert victims, f"no pod of {component} exists"
    log(f"  killing {victims[0].metadata.name}")
    kube.delete_pod(victims[0].metadata.name, force=True)
    late = deployment.follow(deployment.submit("echo", {"message": f"after {component}", "steps": 2}))
    for timeline in (*timelines, late):
        done = timeline.wait_for_end(timeout_s=WAKE_S)
        assert done.state.value == "succeeded"
        if component in {"gateway", "operator", "keda", "redis"}:
            assert done.attempt == 1, f"the loss of {component} must not restart a task"
    wait_until(
        lambda: any(map(ready, COMPONENTS[component](deployment)[1])) or component == "head",
        timeout_s=120,
        what=f"a new {component}",
    )
