"""A pool that answers requests scales with their number, from no pods and back to none, and loses no request.

The tests run in order, and each test begins with the pool as the previous test has left it. So later tests need not
wait for a wake from zero. Each test also passes when it runs alone.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import httpx2
import pytest

from daybreak.wire.pools import NOT_WAKING
from e2e.every_kind import CHAT as POOL
from e2e.every_kind import add_every_kind
from e2e.serving_clients import Load, answered_by, open_streams
from testkit.kubernetes.deployment import GATEWAY_PORT, NAME, WAKE_S, Deployment
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

pytestmark = pytest.mark.core

ENDLESS = {"chunks": 100_000, "chunk_s": 0.25}
PARTS = 30
LONG = {"chunks": PARTS, "chunk_s": 1.0}
"""An answer that takes longer than the HorizontalPodAutoscaler and the operator need to make a group drain."""
DEADLINE_S = float(WAKE_S)


@pytest.fixture(scope="module")
def serve_url(deployment: Deployment) -> str:
    """Adds the pool to the shared installation. Later tests may remove the pool. :returns: the URL for requests."""
    add_every_kind(deployment)
    gateway = deployment.port_forward(f"{NAME}-gateway", GATEWAY_PORT)
    return f"{gateway.url}/v1/pools/{POOL}/serve/"


def refused_before_the_wake_ends(serve_url: str) -> dict[str, Any]:
    """Send a request that cannot wait for a wake. :returns: the problem with which the gateway answers."""
    late = httpx2.post(serve_url, headers={"Daybreak-Deadline-S": "2"}, timeout=30)
    problem: dict[str, Any] = late.json()
    assert (late.status_code, problem["code"]) == (503, "not_ready"), late.text
    assert problem["wake"]["phase"] not in NOT_WAKING
    log(f"  503, Retry-After: {late.headers['Retry-After']}, {problem['wake']}")
    assert int(late.headers["Retry-After"]) >= 1
    return problem


def test_requests_that_arrive_at_zero_are_answered_after_the_wake(
    deployment: Deployment, serve_url: str
) -> None:
    """Four requests wake a pool without pods. With a target load of 2, they need 2 groups, which share the requests.

    Before these four, a request whose deadline ends during the wake gets 503 with the phase.
    """
    deployment.wait_for_zero(POOL, head=False)
    refused_before_the_wake_ends(serve_url)
    with open_streams(serve_url, 4, ENDLESS, deadline_s=DEADLINE_S) as answers:
        assert [answer.status_code for answer in answers] == [200] * 4
        log(f"  answered by {sorted(map(answered_by, answers))}")
        assert len(set(map(answered_by, answers))) == 2, "each group holds two of the requests"
        deployment.wait_for_pool(POOL, lambda pool: pool.requests == 4, "four requests")
        assert deployment.replicas_wanted(POOL) == 2
        deployment.wait_for_groups(POOL, 2)
        ports = [httpx2.URL(group.endpoint or "").port or 0 for group in deployment.client.pool(POOL).groups]
        assert all(20100 <= port <= 20199 for port in ports), "the NetworkPolicies allow no other ports"
    whole = httpx2.post(serve_url, json={"latency_s": 0.1}, timeout=WAKE_S)
    assert (whole.status_code, whole.text) == (200, "part 0\n")


def test_a_group_drains_while_it_answers_and_finishes_its_request(
    deployment: Deployment, serve_url: str
) -> None:
    """Half of the requests end, so one of the two groups must stop, although each still answers a request.

    That group drains and finishes its answer. Only then is its pod removed.
    """
    with open_streams(serve_url, 4, ENDLESS, deadline_s=DEADLINE_S) as warm:
        assert len(set(map(answered_by, warm))) == 2
    with open_streams(serve_url, 4, LONG, deadline_s=DEADLINE_S) as answers:
        by_group: dict[str, list[httpx2.Response]] = defaultdict(list)
        for answer in answers:
            by_group[answered_by(answer)].append(answer)
        assert [len(held) for held in by_group.values()] == [2, 2]
        for _, ended in by_group.values():
            ended.close()
        remaining = {group: held[0] for group, held in by_group.items()}
        draining = wait_until(
            lambda: deployment.groups(POOL, "draining"), timeout_s=PARTS, what="a group that drains"
        )
        log(f"  {draining} drains")
        assert len(deployment.kube.group_pods(POOL)) == 2
        (group,) = draining
        bodies = {name: answer.read() for name, answer in remaining.items()}
    assert group in bodies
    assert {body.count(b"\n") for body in bodies.values()} == {PARTS}, "both answers are whole"
    wait_until(
        lambda: len(deployment.kube.group_pods(POOL)) == 1,
        timeout_s=60,
        what="the removal of the drained group",
    )
    wait_until(
        lambda: group not in deployment.groups(POOL), timeout_s=60, what=f"the end of {group}'s record"
    )


def test_no_request_fails_when_a_groups_pod_is_killed_under_load(
    deployment: Deployment, serve_url: str
) -> None:
    """The pod of one of two groups is killed. Only answers that had begun may be cut off. A new group starts."""
    with Load(serve_url, {"latency_s": 0.3}, clients=4, deadline_s=DEADLINE_S) as load:
        wait_until(lambda: len(set(load.groups)) == 2, timeout_s=WAKE_S, what="answers of two groups")
        deployment.wait_for_groups(POOL, 2)
        victim, other = deployment.client.pool(POOL).groups
        (pod,) = victim.hosts or []
        log(f"  killing {pod} of the group {victim.id}; {other.id} stays")
        deployment.kube.delete_pod(pod, force=True)
        wait_until(
            lambda: set(load.groups) - {victim.id, other.id}, timeout_s=WAKE_S, what="answers of a new group"
        )
    log(f"  answers: {dict(load.statuses)}, by {dict(load.groups)}")
    assert not set(load.statuses) - {200, "cut off"}


def test_without_requests_the_pool_returns_to_zero(deployment: Deployment, serve_url: str) -> None:
    """No pod is left. The next request starts a wake, but cannot wait for it, so it gets the wake's phase and ETA."""
    deployment.wait_for_zero(POOL, head=False)
    deployment.wait_for_pool(POOL, lambda pool: pool.requests == 0, "no requests")
    assert refused_before_the_wake_ends(serve_url)["wake"]["eta_s"] > 0
