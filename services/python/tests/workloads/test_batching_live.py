"""The settings of batches take effect while a group runs, and no invalid value reaches the group."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.observability.catalogue import exported_by
from daybreak_server.observability.prometheus_meter import PrometheusMeter
from daybreak_server.ports.metrics import Exporter
from testkit.text_models import tiny_cross_encoder, tiny_encoder
from testkit.waiting import wait_until

Start = Callable[..., Any]
CALLERS = 8


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "tiny")


def pool_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {"vectors": {"workload": "embed", "model": str(folder), **more}}


def patch(whole: Any, status: int = 200, pool: str = "vectors", **changes: Any) -> Any:
    response = whole.client.patch(f"/v1/pools/{pool}/batching", json=changes)
    assert response.status_code == status, response.text
    return response.json()


def applied(whole: Any, **values: Any) -> None:
    """Wait until the group has these values."""
    wait_until(lambda: whole.debug("vectors")["batching"].items() >= values.items(), 30, f"{values}")


def new_batches(whole: Any, work: Callable[[], None]) -> Counter[int]:
    """How many batches of each size run during ``work``."""

    def sizes() -> Counter[int]:
        return Counter({int(size): count for size, count in whole.debug("vectors")["batches"].items()})

    before = sizes()
    work()
    return sizes() - before


def together(whole: Any, callers: int = CALLERS) -> None:
    """Each of several callers sends one text, all at about the same time."""
    barrier = threading.Barrier(callers)

    def call(number: int) -> None:
        barrier.wait(30)
        whole.post("/v1/embeddings", input=["cat", "dog"][number % 2])

    with ThreadPoolExecutor(callers) as pool:
        list(pool.map(call, range(callers)))


def test_every_knob_changes_the_batches_of_a_running_group(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder))
    texts = ["cat dog"] * 24

    def embed() -> None:
        whole.post("/v1/embeddings", input=texts)

    assert new_batches(whole, embed) == {24: 1}
    patch(whole, max_batch_size=5)
    applied(whole, max_batch_size=5)
    assert new_batches(whole, embed) == {5: 4, 4: 1}
    patch(whole, max_batch_size=None, max_batch_tokens=12)
    applied(whole, max_batch_size=32, max_batch_tokens=12)
    assert new_batches(whole, embed) == {3: 8}  # 3 texts of 4 tokens each
    patch(whole, max_batch_tokens=None, max_batch_size=CALLERS, mode="timed", batch_timeout_ms=60_000)
    applied(whole, max_batch_tokens=16_384, max_batch_size=CALLERS, mode="timed", batch_timeout_ms=60_000)
    assert new_batches(whole, lambda: together(whole)) == {CALLERS: 1}  # the first texts wait for the last
    patch(whole, max_batch_size=None, batch_timeout_ms=1)
    applied(whole, max_batch_size=32, batch_timeout_ms=1)
    assert new_batches(whole, embed) == {24: 1}  # the batch is not full, but now waits only 1 ms
    patch(whole, mode="eager", similar=1.0001)  # each length has batches of its own
    applied(whole, mode="eager", similar=1.0001)
    mixed = ["cat", "cat dog"] * 4
    assert new_batches(whole, lambda: whole.post("/v1/embeddings", input=mixed)) == {4: 2}
    patch(whole, max_waiting=7)
    applied(whole, max_waiting=7)
    assert whole.post("/v1/embeddings", 422, input=mixed)["error"]["code"] == "too_many"
    patch(whole, mode="adaptive", max_waiting=None)
    applied(whole, mode="adaptive", max_waiting=4096)
    assert min(new_batches(whole, embed)) == 1, "the first batches measure small sizes"


def test_what_was_changed_is_shown_and_holds_for_the_next_group(start_whole: Start, encoder: Path) -> None:
    first = start_whole(pool_of(encoder, batching={"max_batch_size": 16}))
    shown = first.client.get("/v1/pools/vectors/batching").json()
    assert (shown["changed"], shown["batching"]["max_batch_size"]) == ({}, 16)
    changed = patch(first, max_batch_size=3, mode="adaptive")
    assert changed["changed"] == {"max_batch_size": 3, "mode": "adaptive"}
    assert changed["batching"] | {"max_batch_size": 3, "mode": "adaptive"} == changed["batching"]
    second = start_whole(pool_of(encoder, batching={"max_batch_size": 16}))
    applied(second, max_batch_size=3, mode="adaptive")
    assert patch(second, max_batch_size=None, mode=None)["changed"] == {}
    applied(second, max_batch_size=16, mode="eager")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"mode": "fast"}, "mode"),
        ({"max_batch_size": 0}, "max_batch_size"),
        ({"max_batch_size": True}, "max_batch_size"),
        ({"max_batch_tokens": "many"}, "max_batch_tokens"),
        ({"max_batch_tokens": "8"}, "max_batch_tokens"),
        ({"batch_timeout_ms": "5"}, "batch_timeout_ms"),
        ({"batch_timeout_ms": -1}, "batch_timeout_ms"),
        ({"similar": 1}, "similar"),
        ({"max_waiting": 1.5}, "max_waiting"),
        ({"size": 4}, "size"),
        ({"size": None}, "size"),
    ],
)
def test_an_invalid_value_is_422_and_changes_nothing(
    gateway: Any, changes: dict[str, Any], field: str
) -> None:
    problem = patch(gateway, 422, **{"max_batch_size": 9, **changes})
    assert (problem["code"], problem["errors"][0]["field"]) == ("invalid_input", field)
    assert gateway.client.get("/v1/pools/vectors/batching").json()["changed"] == {}


def test_only_administrators_change_batches_and_only_of_pools_that_batch(gateway: Any) -> None:
    response = gateway.client.patch(
        "/v1/pools/vectors/batching", json={"mode": "eager"}, headers={"X-Forwarded-For": "10.1.1.1"}
    )
    assert (response.status_code, response.json()["code"]) == (403, "forbidden")
    assert patch(gateway, 409, pool="plain", mode="eager")["code"] == "conflict"
    assert patch(gateway, 404, pool="none", mode="eager")["code"] == "no_such_pool"


def test_batches_and_what_the_cache_found_are_measured(start_whole: Start, encoder: Path) -> None:
    meter = PrometheusMeter(exported_by(Exporter.RANK))
    whole = start_whole(pool_of(encoder, options={"cache_mb": 1}), meter=meter)
    texts = ["cat", "dog", "cat"]
    whole.post("/v1/embeddings", input=texts)  # the repeated text is computed once
    whole.post("/v1/embeddings", input=[*texts, "bird"])
    exposed = meter.render().decode()
    assert 'daybreak_rank_batch_items_sum{pool="vectors"} 3.0' in exposed
    assert 'daybreak_rank_batch_items_count{pool="vectors"} 2.0' in exposed
    assert 'daybreak_rank_batch_seconds_count{pool="vectors"} 2.0' in exposed
    assert 'daybreak_rank_cache_lookups_total{outcome="hit",pool="vectors"} 3.0' in exposed
    assert 'daybreak_rank_cache_lookups_total{outcome="miss",pool="vectors"} 4.0' in exposed
    cache = whole.debug("vectors")["cache"]
    assert (cache["entries"], cache["hits"], cache["misses"]) == (3, 3, 4)
    assert 0 < cache["size_bytes"] < 1_000_000


def test_the_cache_mixes_no_query_with_a_document(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder, options={"cache_mb": 1, "prompts": {"query": "", "document": ""}}))
    for kind in ("query", "document", "query", "document"):
        whole.post("/v1/embeddings", input="a cat", input_type=kind)
    cache = whole.debug("vectors")["cache"]
    assert (cache["entries"], cache["hits"]) == (2, 2)


def test_answers_from_the_cache_are_the_same(start_whole: Start, encoder: Path) -> None:
    whole = start_whole(pool_of(encoder, options={"cache_mb": 1}))
    first = whole.post("/v1/embeddings", input=["a cat", "a dog"])
    second = whole.post("/v1/embeddings", input=["a dog", "a cat"])
    assert [each["embedding"] for each in second["data"]] == [each["embedding"] for each in first["data"]][
        ::-1
    ]
    assert second["usage"] == first["usage"]
    short = whole.post("/v1/embeddings", input=["a dog"], dimensions=4)["data"][0]["embedding"]
    assert len(short) == 4
    assert len(whole.post("/v1/embeddings", input=["a dog"])["data"][0]["embedding"]) == 32


def test_a_reranker_batches_too(start_whole: Start, tmp_path: Path) -> None:
    folder = tiny_cross_encoder(tmp_path / "cross")
    whole = start_whole(
        {"ranks": {"workload": "rerank", "model": str(folder), "batching": {"max_batch_size": 2}}}
    )
    whole.post("/v1/rerank", query="a", documents=["cat", "dog", "bird"])
    assert whole.debug("ranks")["batches"] == {"1": 1, "2": 1}


@pytest.fixture
def gateway(start_whole: Start, encoder: Path) -> Any:
    """A gateway without groups."""
    return start_whole({**pool_of(encoder), "plain": {"workload": "echo-serve"}}, groups=0)
