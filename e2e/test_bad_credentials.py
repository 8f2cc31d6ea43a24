"""Redis and S3 refuse what a Secret says: the cause is named, nothing is lost, and the right Secret alone mends it."""

from __future__ import annotations

import pytest

from daybreak import Client, Retry, UnavailableError
from e2e.diagnosis_asserts import named, recovered, told
from testkit.kubernetes import s3
from testkit.kubernetes.deployment import GATEWAY_PORT, WAKE_S, House
from testkit.kubernetes.kube import ready
from testkit.kubernetes.release import NAME
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

pytestmark = pytest.mark.full

GATEWAYS = "app.kubernetes.io/component=gateway"
OPERATOR = "app.kubernetes.io/component=operator"
SECRET_S = 180
"""The kubelet has replaced the files of a Secret that changed, and whoever is refused has tried again."""


def test_s3_that_refuses_the_key(house: House) -> None:
    """A wrong S3 key is named and the task waits without a strike; with the right one it runs, and nobody restarts."""
    house.at_zero("echo", head=True)
    right = house.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", "wrong")
    before = _uids(house, GATEWAYS)
    try:
        task = house.submit("echo", {"message": "waits for the right key", "steps": 2})
        named(house, "echo", reason="ArtifactsRefused", words="secret key is wrong", within_s=SECRET_S)
        now = house.client.get(task)
        assert (now.state.value, now.strikes) == ("queued", 0), "no work is done that could not be stored"
    finally:
        house.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", right)
    done = house.follow(task).end(timeout_s=WAKE_S)
    assert (done.state.value, done.strikes) == ("succeeded", 0)
    recovered(house, "echo")
    assert _uids(house, GATEWAYS) == before


def test_redis_that_refuses_the_password(house: House) -> None:
    """Pods that start while it is wrong cannot log in, and say so; those of before stay, and a task that runs does not
    notice. When it is right the new ones log in by themselves."""
    story = house.follow(
        house.submit("echo", {"message": "runs all the while", "steps": 400, "step_s": 0.25})
    )
    story.at_step(5, timeout_s=WAKE_S)
    before = _uids(house, GATEWAYS)
    right = house.kube.set_secret(f"{NAME}-redis", "password", "wrong")
    try:
        house.kube.delete_pod(house.kube.pods(GATEWAYS)[0].metadata.name)
        house.kube.delete_pod(house.kube.pods(OPERATOR)[0].metadata.name)
        told(house, "echo", reason="RedisRefused", words="Redis refuses the password")
        refused = wait_until(lambda: _new_gateway(house, before), timeout_s=60, what="a new gateway")
        assert refused is not None
        assert "Redis refuses the user or the password" in house.doctor(f"pod/{refused}")
        _pools_are_503(house, refused)
        assert house.client.get(story.task).state.value == "running", (
            "the gateway of before stays and answers"
        )
    finally:
        house.kube.set_secret(f"{NAME}-redis", "password", right)
    started = _uids(house, GATEWAYS) | _uids(house, OPERATOR)
    wait_until(
        lambda: all(map(ready, house.kube.pods(GATEWAYS))),
        timeout_s=SECRET_S,
        what="the new gateway to log in",
    )
    recovered(house, "echo")
    assert started == _uids(house, GATEWAYS) | _uids(house, OPERATOR), "nobody was made anew for it"
    after = house.follow(house.submit("echo", {"message": "after it", "steps": 2}))
    assert after.end(timeout_s=WAKE_S).state.value == "succeeded"
    done = story.end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)


def _uids(house: House, selector: str) -> set[str]:
    return {pod.metadata.uid for pod in house.kube.pods(selector)}


def _new_gateway(house: House, before: set[str]) -> str | None:
    """The one that was started since, when its process runs; it cannot become ready."""
    for pod in house.kube.pods(GATEWAYS):
        states = pod.status.container_statuses or []
        if pod.metadata.uid not in before and any(one.started for one in states):
            return str(pod.metadata.name)
    return None


def _pools_are_503(house: House, gateway: str) -> None:
    forward = house.forward_pod(GATEWAYS, GATEWAY_PORT, name=gateway)
    with (
        Client(forward.url, retry=Retry(attempts=1)) as client,
        pytest.raises(UnavailableError, match="password") as refusal,
    ):
        client.pools()
    say(f"  /v1/pools says: {refusal.value.problem.detail}")
    problem = refusal.value.problem
    assert (problem.status, problem.code) == (503, "store_unavailable")
