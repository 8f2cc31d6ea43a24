"""Wrong Redis and S3 credentials are reported, no task is lost, and correcting the Secret is enough."""

from __future__ import annotations

import pytest

from daybreak import Client, Retry, UnavailableError
from e2e.diagnosis_asserts import assert_diagnosed, assert_recovered, assert_reported
from testkit.kubernetes import s3
from testkit.kubernetes.deployment import GATEWAY_PORT, WAKE_S, Deployment
from testkit.kubernetes.kube import ready
from testkit.kubernetes.release import NAME
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full

GATEWAYS = "app.kubernetes.io/component=gateway"
OPERATOR = "app.kubernetes.io/component=operator"
SECRET_S = 180
"""Within this time the kubelet updates the files of the Secret, and the rejected process retries."""


def test_a_wrong_s3_key_is_diagnosed_and_correcting_it_is_enough(deployment: Deployment) -> None:
    """A wrong S3 key is reported, and the task waits without a strike.

    Once the key is right, the task runs. No gateway restarts.
    """
    deployment.wait_for_zero("echo", head=True)
    correct = deployment.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", "wrong")
    before = _uids(deployment, GATEWAYS)
    try:
        task = deployment.submit("echo", {"message": "waits for the right key", "steps": 2})
        assert_diagnosed(
            deployment, "echo", reason="ArtifactsRefused", pattern="secret key", within_s=SECRET_S
        )
        waiting = deployment.client.get(task)
        assert (waiting.state.value, waiting.strikes) == ("queued", 0), (
            "no work starts whose results could not be stored"
        )
    finally:
        deployment.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", correct)
    done = deployment.follow(task).wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.strikes) == ("succeeded", 0)
    assert_recovered(deployment, "echo")
    assert _uids(deployment, GATEWAYS) == before


def test_a_wrong_redis_password_is_diagnosed_and_correcting_it_is_enough(deployment: Deployment) -> None:
    """Pods that start with a wrong password cannot log in, and report this. Older pods and tasks are not affected.

    Once the password is right, the new pods log in without a restart.
    """
    timeline = deployment.follow(
        deployment.submit("echo", {"message": "runs throughout", "steps": 400, "step_s": 0.25})
    )
    timeline.wait_for_step(5, timeout_s=WAKE_S)
    before = _uids(deployment, GATEWAYS)
    correct = deployment.kube.set_secret(f"{NAME}-redis", "password", "wrong")
    try:
        deployment.kube.delete_pod(deployment.kube.pods(GATEWAYS)[0].metadata.name)
        deployment.kube.delete_pod(deployment.kube.pods(OPERATOR)[0].metadata.name)
        assert_reported(deployment, "echo", reason="RedisRefused", pattern="password")
        new_gateway = wait_until(lambda: _new_gateway(deployment, before), timeout_s=60, what="a new gateway")
        assert new_gateway is not None
        assert "password" in deployment.doctor(f"pod/{new_gateway}")
        _pools_are_503(deployment, new_gateway)
        assert deployment.client.get(timeline.task).state.value == "running", (
            "the old gateway stays and responds"
        )
    finally:
        deployment.kube.set_secret(f"{NAME}-redis", "password", correct)
    started = _uids(deployment, GATEWAYS) | _uids(deployment, OPERATOR)
    wait_until(
        lambda: all(map(ready, deployment.kube.pods(GATEWAYS))),
        timeout_s=SECRET_S,
        what="the new gateway to log in",
    )
    assert_recovered(deployment, "echo")
    assert started == _uids(deployment, GATEWAYS) | _uids(deployment, OPERATOR), "no pod was recreated"
    after = deployment.follow(deployment.submit("echo", {"message": "after it", "steps": 2}))
    assert after.wait_for_end(timeout_s=WAKE_S).state.value == "succeeded"
    done = timeline.wait_for_end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)


def _uids(deployment: Deployment, selector: str) -> set[str]:
    return {pod.metadata.uid for pod in deployment.kube.pods(selector)}


def _new_gateway(deployment: Deployment, before: set[str]) -> str | None:
    """The gateway pod that is not in ``before``, once its process runs. The pod cannot become ready yet."""
    for pod in deployment.kube.pods(GATEWAYS):
        states = pod.status.container_statuses or []
        if pod.metadata.uid not in before and any(state.started for state in states):
            return str(pod.metadata.name)
    return None


def _pools_are_503(deployment: Deployment, gateway: str) -> None:
    forward = deployment.port_forward_pod(GATEWAYS, GATEWAY_PORT, name=gateway)
    with (
        Client(forward.url, retry=Retry(attempts=1)) as client,
        pytest.raises(UnavailableError, match="password") as caught,
    ):
        client.pools()
    log(f"  /v1/pools returns: {caught.value.problem.detail}")
    problem = caught.value.problem
    assert (problem.status, problem.code) == (503, "store_unavailable")
