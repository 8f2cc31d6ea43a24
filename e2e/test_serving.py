"""A pool that answers requests scales by them, from no pods and back."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx2
import pytest

from daybreak.wire.pools import NOT_WAKING
from testkit.kubernetes.deployment import GATEWAY_PORT, NAME, WAKE_S, Deployment
from testkit.kubernetes.values import pool
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.full

POOL = "chat"
CHAT = {
    **pool("echo-serve", ranks=1, hosts=1, idle={"mode": "cluster", "afterSeconds": 5}),
    "kind": "online",
    "targetLoad": 2,
    "settings": {"capacity": 2},
}
"""Two requests at once in each of at most two groups."""
SLOW_S = 45
"""Longer than the HorizontalPodAutoscaler takes to see that a second group is needed, and the group to start."""


@pytest.fixture
def serve_url(deployment: Deployment) -> Iterator[str]:
    """Adds the pool to the shared installation. :returns: the URL below which it answers.

    The shared values do not have it, because an earlier chart, from which a test upgrades, would refuse them.
    """
    also = {**deployment.values, "pools": {**deployment.values["pools"], POOL: CHAT}}
    deployment.release.upgrade(also)
    gateway = deployment.port_forward(f"{NAME}-gateway", GATEWAY_PORT)
    yield f"{gateway.url}/v1/pools/{POOL}/serve/"
    deployment.release.upgrade(deployment.values)


def test_requests_that_arrive_at_zero_are_answered_after_the_wake(
    deployment: Deployment, serve_url: str
) -> None:
    """Four requests wake a pool without pods: the target load of 2 asks for 2 groups. Then it returns to no pods.

    Before, a request whose deadline ends during the wake gets 503 with the phase.
    """
    deployment.wait_for_zero(POOL, head=False)
    late = httpx2.post(serve_url, headers={"Daybreak-Deadline-S": "2"}, timeout=30)
    problem = late.json()
    assert (late.status_code, problem["code"]) == (503, "not_ready"), late.text
    assert problem["wake"]["phase"] not in NOT_WAKING
    assert int(late.headers["Retry-After"]) >= 1

    with ThreadPoolExecutor(4) as clients:
        headers = {"Daybreak-Deadline-S": str(WAKE_S + 2 * SLOW_S)}
        waiting = [
            clients.submit(
                httpx2.post,
                serve_url,
                json={"latency_s": SLOW_S},
                headers=headers,
                timeout=WAKE_S + 3 * SLOW_S,
            )
            for _ in range(4)
        ]
        wait_until(lambda: deployment.client.pool(POOL).requests == 4, timeout_s=30, what="four requests")
        wait_until(lambda: deployment.replicas_wanted(POOL) == 2, timeout_s=WAKE_S, what="two groups wanted")
        answers = [request.result() for request in waiting]
    log(f"  answered by {sorted(answer.headers['daybreak-group'] for answer in answers)}")
    assert [answer.status_code for answer in answers] == [200] * 4
    deployment.wait_for_zero(POOL, head=False)
    assert deployment.client.pool(POOL).requests == 0
