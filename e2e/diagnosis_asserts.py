"""That a cause is named wherever a person looks, and that it is over when it is mended."""

from __future__ import annotations

import re
import time

from testkit.kubernetes.deployment import House
from testkit.kubernetes.kube import condition
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

NAMED_S = 240


def named(house: House, pool: str, *, reason: str, words: str, within_s: float = 0) -> None:
    """By the pool's condition, an Event, `/v1/pools` and `daybreakd doctor`, which may be ``within_s`` behind."""
    told(house, pool, reason=reason, words=words)

    def shown() -> bool:
        of = house.client.pool(pool).condition
        return of is not None and of.reason == reason

    wait_until(shown, timeout_s=30, what=f"{reason} in /v1/pools")
    until = time.monotonic() + within_s
    while re.search(words, report := house.doctor()) is None:
        assert time.monotonic() < until, report
        time.sleep(5)


def told(house: House, pool: str, *, reason: str, words: str) -> None:
    """By what the operator writes into Kubernetes: the pool's condition and an Event."""

    def sentence() -> str | None:
        healthy = condition(house.kube.pool(pool), "Healthy")
        return str(healthy["message"]) if healthy.get("reason") == reason else None

    message = wait_until(sentence, timeout_s=NAMED_S, what=f"{reason} in the condition of {pool}")
    say(f"  the condition says: {message}")
    assert message is not None
    assert re.search(words, message)

    def event() -> bool:
        mine = [one for one in house.kube.events() if one.involved_object.name == pool]
        return any(one.reason == reason and re.search(words, one.message) for one in mine)

    wait_until(event, timeout_s=30, what=f"an Event {reason}")


def recovered(house: House, pool: str) -> None:
    """Nothing is wrong any more, as the operator and `/v1/pools` see it."""

    def well() -> bool:
        of = house.client.pool(pool).condition
        return condition(house.kube.pool(pool), "Healthy").get("status") == "True" and not (of and of.reason)

    wait_until(well, timeout_s=NAMED_S, what=f"the recovery of {pool}")
