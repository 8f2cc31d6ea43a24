"""Assertions: a problem is reported wherever a person looks, and the pool recovers once the problem is fixed."""

from __future__ import annotations

import re
import time

from testkit.kubernetes.deployment import Deployment
from testkit.kubernetes.kube import condition
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

REPORT_TIMEOUT_S = 240


def assert_diagnosed(
    deployment: Deployment, pool: str, *, reason: str, pattern: str, within_s: float = 0
) -> None:
    """Assert that the pool's condition, an Event, `/v1/pools` and `daybreakd doctor` report the problem.

    `daybreakd doctor` may need up to ``within_s`` seconds longer than the other three.
    """
    assert_reported(deployment, pool, reason=reason, pattern=pattern)

    def in_api() -> bool:
        shown = deployment.client.pool(pool).condition
        return shown is not None and shown.reason == reason

    wait_until(in_api, timeout_s=30, what=f"{reason} in /v1/pools")
    until = time.monotonic() + within_s
    while re.search(pattern, report := deployment.doctor()) is None:
        assert time.monotonic() < until, report
        time.sleep(5)


def assert_reported(deployment: Deployment, pool: str, *, reason: str, pattern: str) -> None:
    """Assert that the operator reports the problem in Kubernetes: in the pool's condition and in an Event."""

    def in_condition() -> str | None:
        healthy = condition(deployment.kube.pool(pool), "Healthy")
        return str(healthy["message"]) if healthy.get("reason") == reason else None

    message = wait_until(
        in_condition, timeout_s=REPORT_TIMEOUT_S, what=f"{reason} in the condition of {pool}"
    )
    log(f"  the condition says: {message}")
    assert message is not None
    assert re.search(pattern, message)

    def in_event() -> bool:
        events = [event for event in deployment.kube.events() if event.involved_object.name == pool]
        return any(event.reason == reason and re.search(pattern, event.message) for event in events)

    wait_until(in_event, timeout_s=30, what=f"an Event {reason}")


def assert_recovered(deployment: Deployment, pool: str) -> None:
    """Assert that the operator and `/v1/pools` no longer report a problem."""

    def healthy() -> bool:
        shown = deployment.client.pool(pool).condition
        return condition(deployment.kube.pool(pool), "Healthy").get("status") == "True" and not (
            shown and shown.reason
        )

    wait_until(healthy, timeout_s=REPORT_TIMEOUT_S, what=f"the recovery of {pool}")
