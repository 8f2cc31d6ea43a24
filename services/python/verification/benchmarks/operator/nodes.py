"""Simulated nodes. kwok acts as their kubelets, so pods seem to run although there is no machine."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

MARK = "kwok.x-k8s.io/node"
PODS_A_NODE = 250
PLACE: dict[str, Any] = {
    "nodeSelector": {MARK: "fake"},
    "tolerations": [{"key": MARK, "operator": "Exists", "effect": "NoSchedule"}],
    "terminationGracePeriodSeconds": 0,
}
"""What a pod's spec needs to be scheduled on a simulated node."""


class KwokMissingError(RuntimeError):
    """kwok is not installed."""


@contextmanager
def nodes(api: client.ApiClient, pods: int, log: Path) -> Iterator[None]:
    """Create simulated nodes with room for ``pods`` pods, and start kwok. After the block, stop kwok and
    delete the nodes.

    :raises KwokMissingError: if kwok is not on PATH.
    """
    program = shutil.which("kwok")
    if program is None:
        raise KwokMissingError("kwok is not on PATH: install its single binary from https://kwok.sigs.k8s.io")
    core, names = client.CoreV1Api(api), [f"fake-{at}" for at in range(math.ceil(pods / PODS_A_NODE * 1.1))]
    for name in names:
        core.create_node(_node(name))
    chosen = f"--manage-nodes-with-annotation-selector={MARK}=fake"
    # If a node's lease were not renewed for 40 s, Kubernetes would consider the node dead and its pods not ready.
    lease = "--node-lease-duration-seconds=40"
    command = [program, "--kubeconfig", os.environ["KUBECONFIG"], "--manage-all-nodes=false", chosen, lease]
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
        for name in names:
            core.delete_node(name)


def _node(name: str) -> dict[str, Any]:
    room = {"cpu": "1000", "memory": "1Ti", "pods": str(PODS_A_NODE)}
    return {
        "metadata": {"name": name, "labels": {MARK: "fake"}, "annotations": {MARK: "fake"}},
        "spec": {"taints": [{"key": MARK, "value": "fake", "effect": "NoSchedule"}]},
        "status": {"capacity": room, "allocatable": room},
    }
