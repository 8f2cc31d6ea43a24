"""If the chart's values request a GPU, a rank gets it through Kubernetes and Ray. No real device is needed."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.kubernetes.deployment import WAKE_S, Deployment

pytestmark = pytest.mark.full

GPU = "nvidia.com/gpu"
VALUES = Path(__file__).with_name("gpu-values.yaml")


def test_a_rank_gets_a_gpu(deployment: Deployment) -> None:
    """With one GPU per rank in the values, the pod requests a GPU. The rank starts only if Ray assigns it the GPU."""
    nodes = deployment.kube.core.list_node().items
    if not any(int(node.status.allocatable.get(GPU, 0)) for node in nodes):
        pytest.skip(f"no node advertises {GPU}")
    deployment.release.upgrade(deployment.values, VALUES)
    try:
        timeline = deployment.follow(
            deployment.submit("gpu", {"message": "on a GPU", "steps": 20, "step_s": 0.5})
        )
        timeline.wait_for_step(1, timeout_s=WAKE_S)
        (pod,) = deployment.kube.group_pods("gpu")
        assert pod.spec.containers[0].resources.limits[GPU] == "1"
        assert timeline.wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"
        deployment.wait_for_zero("gpu", head=False)
        deployment.assert_tasks_ended()  # before the gateway forgets the pool
    finally:
        deployment.release.upgrade(deployment.values)
