"""Helpers for the tests of the router."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from api_support import Api

from testkit.waiting import wait_until

SERVE = "/v1/pools/answers/serve"


def ready(api: Api, count: int) -> None:
    """Wait until the gateway knows this number of groups."""
    router = api.context.serving_pools.get("answers").router
    wait_until(lambda: len(router.groups) == count, 60, f"{count} ready groups")


def rss_bytes() -> int:
    """The memory of this process, in which the gateway runs."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def metrics(api: Api) -> str:
    return api.client.get("/metrics").text


def still(value: Callable[[], int]) -> int:
    """Wait until the value stays the same for a while, and return it."""
    seen = [value()]

    def same() -> bool:
        seen.append(value())
        return len(seen) > 10 and len(set(seen[-10:])) == 1

    wait_until(same, 60, "the value to stay the same")
    return seen[-1]
