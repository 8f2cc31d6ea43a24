"""The way of a GPU: from the chart's values to a rank that Ray gives it to. No device is needed behind it."""

from __future__ import annotations

from pathlib import Path

import pytest

from testkit.kubernetes.deployment import WAKE_S, House

pytestmark = pytest.mark.full

GPU = "nvidia.com/gpu"
VALUES = Path(__file__).with_name("gpu-values.yaml")


def test_a_gpu_for_a_rank(house: House) -> None:
    """A values file with a GPU a rank: its pod asks for one, and Ray sees it, or the rank would never start."""
    nodes = house.kube.core.list_node().items
    if not any(int(node.status.allocatable.get(GPU, 0)) for node in nodes):
        pytest.skip(f"no node advertises {GPU}")
    house.release.upgrade(house.values, VALUES)
    try:
        story = house.follow(house.submit("gpu", {"message": "on a GPU", "steps": 20, "step_s": 0.5}))
        story.at_step(1, timeout_s=WAKE_S)
        (worker,) = house.kube.workers("gpu")
        assert worker.spec.containers[0].resources.limits[GPU] == "1"
        assert story.end(timeout_s=WAKE_S).state.value == "succeeded"
        house.at_zero("gpu", head=False)
        house.settle()  # while the gateway still knows the pool
    finally:
        house.release.upgrade(house.values)
