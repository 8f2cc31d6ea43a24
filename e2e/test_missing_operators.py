"""While the operator of KEDA or KubeRay is missing, tasks are accepted and wait. Once it is back, they run.

Each test scales one operator to zero for a moment. All other work of this operator in the cluster pauses too.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from e2e.diagnosis_asserts import assert_diagnosed, assert_recovered
from testkit.kubernetes.deployment import WAKE_S, Deployment
from testkit.kubernetes.kube import Kube, selector
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full


@pytest.mark.parametrize(
    ("operator", "reason", "pattern"),
    [("keda-operator", "KedaSilent", "KEDA"), ("kuberay-operator", "KubeRaySilent", "KubeRay")],
)
def test_a_missing_operator_is_diagnosed(
    deployment: Deployment, operator: str, reason: str, pattern: str
) -> None:
    """A missing operator is reported. The task waits without a strike, and runs once the operator is back."""
    deployment.wait_for_zero("echo", head=True)
    with _scaled_to_zero(deployment, operator):
        task = deployment.submit("echo", {"message": f"waits for {operator}", "steps": 2})
        assert_diagnosed(deployment, "echo", reason=reason, pattern=pattern)
        assert deployment.client.get(task).state.value == "queued"
    done = deployment.follow(task).wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)
    assert_recovered(deployment, "echo")


@contextmanager
def _scaled_to_zero(deployment: Deployment, operator: str) -> Iterator[None]:
    """Scale the operator to zero until the context ends, then back to its former size."""
    operator_deployment = deployment.kube.deployment(operator)
    operator_kube = Kube(operator_deployment.metadata.namespace)
    log(f"  {operator} of {operator_kube.namespace} is stopped")
    deployment.kube.scale(operator_deployment, 0)
    try:
        wait_until(
            lambda: not operator_kube.pods(selector(operator_deployment)),
            timeout_s=60,
            what=f"the end of {operator}",
        )
        yield
    finally:
        deployment.kube.scale(operator_deployment, operator_deployment.spec.replicas)
        log(f"  {operator} is restarted")
