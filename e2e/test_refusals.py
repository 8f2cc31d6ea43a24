"""Redis and S3 refuse what a Secret says: the cause is named, nothing is lost, and the right Secret mends it.

Pods read Secrets when they start, so a person has to renew them: by the commands of docs/runbooks.md.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak import Client, Retry, UnavailableError
from e2e import s3
from e2e.house import GATEWAY_PORT, WAKE_S, House
from e2e.kube import ready
from e2e.naming import named, recovered, told
from e2e.pages import Page, Shell
from e2e.release import NAME
from e2e.telling import say
from e2e.waiting import wait_until

pytestmark = pytest.mark.full

GATEWAYS = "app.kubernetes.io/component=gateway"
RUNBOOKS = Page("runbooks.md")
RESTART = f"kubectl -n {NAME} rollout restart"


@pytest.fixture
def shell(house: House, tmp_path: Path) -> Shell:
    """Where the page's commands run."""
    return Shell(tmp_path, namespace=house.kube.namespace)


def test_s3_that_refuses_the_key(house: House, shell: Shell) -> None:
    """A wrong S3 key is named and the task waits without a strike; with the right one it runs."""
    house.at_zero("echo", head=True)
    right = house.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", "wrong")
    try:
        _renew_gateways_and_groups(house, shell)
        task = house.submit("echo", {"message": "waits for the right key", "steps": 2})
        named(house, "echo", reason="ArtifactsRefused", words="secret key is wrong")
        now = house.client.get(task)
        assert (now.state.value, now.strikes) == ("queued", 0), "no work is done that could not be stored"
    finally:
        house.kube.set_secret(s3.SECRET, "AWS_SECRET_ACCESS_KEY", right)
        _renew_gateways_and_groups(house, shell)
    done = house.follow(task).end(timeout_s=WAKE_S)
    assert (done.state.value, done.strikes) == ("succeeded", 0)
    recovered(house, "echo")


def test_redis_that_refuses_the_password(house: House, shell: Shell) -> None:
    """A wrong password is named, also by an operator that cannot log in; a task that runs does not notice."""
    story = house.follow(
        house.submit("echo", {"message": "runs all the while", "steps": 400, "step_s": 0.25})
    )
    story.at_step(5, timeout_s=WAKE_S)
    restart = RUNBOOKS.inline("RedisRefused", RESTART)
    before = {pod.metadata.name for pod in house.kube.pods(GATEWAYS)}
    right = house.kube.set_secret(f"{NAME}-redis", "password", "wrong")
    try:
        shell.run(restart)
        told(house, "echo", reason="RedisRefused", words="Redis refuses the password")
        refused = wait_until(lambda: _new_gateway(house, before), timeout_s=60, what="a new gateway")
        assert "Redis refuses the user or the password" in house.doctor(f"pod/{refused}")
        _pools_are_503(house, refused)
        assert house.client.get(story.task).state.value == "running", "the gateways of before stay and answer"
    finally:
        house.kube.set_secret(f"{NAME}-redis", "password", right)
        renewed = _renewing(house)
        shell.run(restart)
        renewed()
    recovered(house, "echo")
    after = house.follow(house.submit("echo", {"message": "after it", "steps": 2}))
    assert after.end(timeout_s=WAKE_S).state.value == "succeeded"
    done = story.end(timeout_s=WAKE_S)
    assert (done.state.value, done.attempt, done.strikes) == ("succeeded", 1, 0)


def _renew_gateways_and_groups(house: House, shell: Shell) -> None:
    """As the runbook of `ArtifactsRefused` says, and all of it has happened."""
    renewed = _renewing(house)
    heads = {pod.metadata.uid for pod in house.kube.heads("echo")}
    shell.run(RUNBOOKS.inline("ArtifactsRefused", RESTART))
    (by_hand,) = RUNBOOKS.commands("Renew groups by hand")
    shell.run(by_hand, {"pool=video": "pool=echo"})
    renewed()

    def another_head() -> bool:
        now = house.kube.heads("echo")
        return any(map(ready, now)) and not heads & {pod.metadata.uid for pod in now}

    wait_until(another_head, timeout_s=180, what="another Ray head")


def _renewing(house: House) -> Callable[[], None]:
    """To be called before gateways are renewed; what it gives waits until all of them have been."""
    old = {pod.metadata.name for pod in house.kube.pods(GATEWAYS) if ready(pod)}

    def wait() -> None:
        def done() -> bool:
            now = house.kube.pods(GATEWAYS)
            return all(map(ready, now)) and not old & {pod.metadata.name for pod in now}

        wait_until(done, timeout_s=240, what="new gateways only")

    return wait


def _new_gateway(house: House, before: set[str]) -> str | None:
    """The one that was started since, when its process runs; it cannot become ready."""
    for pod in house.kube.pods(GATEWAYS):
        states = pod.status.container_statuses or []
        if pod.metadata.name not in before and any(one.started for one in states):
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
