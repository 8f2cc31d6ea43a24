"""Requests pass through a real gateway to real servers."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

import httpx2
from api_support import Api

from testkit.waiting import wait_until

SERVE = "/v1/pools/answers/serve"


def ready(api: Api, count: int) -> None:
    """Wait until the gateway knows this number of groups."""
    router = api.context.serving_pools.get("answers").router
    wait_until(lambda: len(router.endpoints) == count, 60, f"{count} ready groups")


def test_a_request_reaches_a_group_and_its_answer_the_client(start_gateway, groups):
    api = start_gateway()
    groups.register(*groups.start(1))
    response = api.client.post(f"{SERVE}/a/b%2Fc?x=1&y=%20", content=b"hello", headers={"X-Own": "1"})
    assert response.status_code == 200, response.text
    seen = response.json()
    assert (seen["method"], seen["path"], seen["query"]) == ("POST", "/a/b%2Fc", "x=1&y=%20")
    assert seen["sha256"] == hashlib.sha256(b"hello").hexdigest()
    assert seen["headers"]["x-own"] == "1"
    assert float(seen["headers"]["daybreak-deadline-s"]) > 500
    assert response.headers["daybreak-group"] == groups.backends[0].id
    assert response.headers["x-request-id"] == seen["headers"]["x-request-id"]
    assert len(response.headers.get_list("date")) == 1
