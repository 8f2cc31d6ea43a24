"""``GET /health`` and ``GET /debug`` describe a serving pool that has no group, and start no group."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest
from api_support import Api

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import new_group_id
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolReport
from testkit.http_backend import Backend
from testkit.valkey import Server
from testkit.waiting import wait_until

POOLS: dict[str, Any] = {
    "vectors": {
        "workload": "embed",
        "model": "/models/mini",
        "gpus_per_rank": 0.25,
        "groups": 3,
        "batching": {"max_batch_size": 8},
    },
    "answers": {"workload": "echo-serve", "device": "cpu"},
}
COSTS = {"model": "mini", "groups_ready": 0, "groups_max": 3, "gpus_per_group": 0.25}


@pytest.fixture
def api(start_api: Callable[..., Api]) -> Api:
    return start_api(pools=POOLS)


@pytest.fixture
def backend(tmp_path: Path) -> Iterator[Backend]:
    backend = Backend(tmp_path).wait_ready()
    yield backend
    backend.process.kill()
    backend.process.wait(30)


def get(api: Api, path: str) -> dict[str, Any]:
    response = api.client.get(path)
    assert response.status_code == 200, response.text
    return response.json()


def woken_before(valkey: Server) -> None:
    """Report, as the operator does, that the last wake took a minute."""

    async def report() -> None:
        store = RedisStore(valkey.url)
        try:
            last = {"pods": 20.0, "model": 40.0, "total": 60.0}
            await store.publish_report(
                "vectors", PoolReport(phase="Zero", wake_phase="zero", wake_last=last), ttl_s=60
            )
        finally:
            await store.close()

    asyncio.run(report())


def test_health_lists_serving_pools_and_what_a_wake_costs(api: Api, valkey: Server) -> None:
    pools = get(api, "/health")["pools"]
    assert pools.keys() == {"vectors", "answers"}
    assert pools["vectors"] == {"workload": "embed", **COSTS, "wake": {"phase": "zero", "last": {}}}
    assert "gpus_per_group" not in pools["answers"]
    woken_before(valkey)

    def wake() -> dict[str, Any]:
        return get(api, "/health")["pools"]["vectors"]["wake"]

    wait_until(lambda: wake().get("eta_s") == 60.0, 30, "what the last wake took")
    assert wake()["last"] == {"pods_s": 20.0, "model_s": 40.0, "total_s": 60.0}


@pytest.mark.parametrize("query", ["", "?model=vectors", "?model=mini"])
def test_debug_describes_a_pool_at_zero(api: Api, query: str) -> None:
    shown = get(api, f"/debug{query}")
    assert shown.items() >= {"pool": "vectors", "workload": "embed", **COSTS}.items()
    assert shown["batching"]["max_batch_size"] == 8
    assert shown["wake"]["phase"] == "zero"
    assert "start groups" in shown["message"]


def test_debug_shows_what_was_changed_while_the_pool_was_at_zero(api: Api) -> None:
    changed = api.client.patch("/v1/pools/vectors/batching", json={"max_batch_size": 5})
    assert changed.status_code == 200
    wait_until(lambda: get(api, "/debug")["batching"]["max_batch_size"] == 5, 30, "the change")


def test_get_debug_and_health_wake_no_pool(api: Api) -> None:
    """At the end, a POST wakes a pool. This shows that the test would notice a wake."""
    for path in ("/health", "/debug", "/debug?model=answers"):
        get(api, path)
    assert (get(api, "/v1/pools/vectors")["requests"], get(api, "/v1/pools/answers")["requests"]) == (0, 0)
    assert "daybreak_router_requests_total{" not in "".join(
        line for line in api.client.get("/metrics").text.splitlines() if not line.endswith(" 0.0")
    )
    response = api.client.post("/v1/embeddings", json={"input": "a"}, headers={"Daybreak-Deadline-S": "1"})
    assert response.status_code == 503
    assert 'outcome="not_ready"' in "".join(
        line for line in api.client.get("/metrics").text.splitlines() if not line.endswith(" 0.0")
    )


def test_debug_describes_a_pool_whose_last_group_drains(api: Api, valkey: Server, backend: Backend) -> None:
    """The gateway answers. If it passed the request on, the request would wait for another group, and start one."""
    with contextlib.closing(RedisQueue(valkey.url, pool="answers")) as queue:
        record = queue.register(backend.record(drain=True), ttl_s=60)
        wait_until(lambda: get(api, "/v1/pools/answers")["groups"], 30, "the group")
        shown = get(api, "/debug?model=answers")
        assert (shown["pool"], shown["groups_ready"]) == ("answers", 0)
        assert get(api, "/v1/pools/answers")["requests"] == 0
        queue.deregister(record)


@pytest.mark.parametrize("how", ["draining", "dead"])
def test_debug_describes_a_pool_whose_last_group_has_just_left(
    api: Api, valkey: Server, backend: Backend, how: str
) -> None:
    """The store still shows the group, so the gateway first sends the request to this group."""
    with contextlib.closing(RedisQueue(valkey.url, pool="answers")) as queue:
        record = queue.register(backend.record(), ttl_s=60)
        wait_until(lambda: get(api, "/health")["pools"]["answers"]["groups_ready"] == 1, 30, "the group")
        if how == "dead":
            backend.kill()
        shown = get(api, f"/debug?model=answers&refuse={how}")
        assert shown["pool"] == "answers"
        assert "start groups" in shown["message"]
        assert get(api, "/v1/pools/answers")["requests"] == 0
        queue.deregister(record)


def test_a_name_that_does_not_exist_is_404(api: Api) -> None:
    response = api.client.get("/debug?model=none")
    assert (response.status_code, response.json()["code"]) == (404, "model_not_found")


def test_a_ready_group_answers_itself(api: Api, valkey: Server, backend: Backend) -> None:
    with contextlib.closing(RedisQueue(valkey.url, pool="answers")) as queue:
        record = backend.record()
        queue.register(record, ttl_s=60)
        shown = wait_until(
            lambda: found if "message" not in (found := get(api, "/debug?model=answers")) else None,
            30,
            "the answer of the group",
        )
        assert shown["path"] == "/debug"
        assert get(api, "/health")["pools"]["answers"]["groups_ready"] == 1
        queue.deregister(record)


CAUSE = Cause(reason=Reason.MODEL_MISSING, message="ModelMissingError: /models/mini has no config.json")


@pytest.fixture
def queue(valkey: Server) -> Iterator[RedisQueue]:
    """The queue of the pool ``vectors``, as its groups use it."""
    queue = RedisQueue(valkey.url, pool="vectors")
    yield queue
    queue.close()


def embed(api: Api) -> httpx2.Response:
    return api.client.post("/v1/embeddings", json={"model": "vectors", "input": "a"}, timeout=60)


def test_a_request_to_groups_that_cannot_load_their_model_gets_the_reason(
    start_api: Callable[..., Api], queue: RedisQueue
) -> None:
    """A request that waits gets the reason as soon as a group has reported it, and a new request gets it at once."""
    api = start_api(pools=POOLS)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(embed, api)
        wait_until(lambda: get(api, "/v1/pools/vectors")["requests_waiting"] == 1, 30, "the request")
        queue.report_failure(CAUSE)
        answers = [waiting.result(60), embed(api)]
    for answer in answers:
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "120")
        assert answer.json()["error"]["code"] == "not_ready"
        assert CAUSE.message in answer.json()["error"]["message"]


@pytest.mark.parametrize("why", ["starting", "operator", "ranks"])
def test_a_request_waits_for_groups_that_may_start(
    start_api: Callable[..., Api], queue: RedisQueue, valkey: Server, why: str
) -> None:
    """A group may start: one is starting, the operator may start others, or the failure may pass."""
    reason = Reason.RANKS_FAIL if why == "ranks" else Reason.MODEL_MISSING
    queue.report_failure(Cause(reason=reason, message="why"))
    if why == "starting":
        queue.register(GroupRecord(id=new_group_id(), state=GroupState.STARTING), ttl_s=60)
    elif why == "operator":
        woken_before(valkey)
    answer = start_api(pools=POOLS, router={"max_wait_s": 1}).client.post(
        "/v1/embeddings", json={"model": "vectors", "input": "a"}, timeout=60
    )
    assert answer.status_code == 503
    assert "can start" not in answer.json()["error"]["message"]
