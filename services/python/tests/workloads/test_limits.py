"""Tests of a pool for embeddings under too many requests, short deadlines, too little memory, and a hanging model."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.workloads.base import NoInput, WorkloadSpec
from daybreak_server.workloads.embed.model import EmbedInput
from daybreak_server.workloads.embed.workload import Embed
from testkit.text_models import tiny_encoder
from testkit.waiting import wait_until

Start = Callable[..., Any]


class Gate:
    """The batches of :class:`Gated` wait while this gate is closed. It is open at first."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.batches: list[int] = []
        self.fails = 0
        """A batch of more items than this raises ``MemoryError``. With 0, no batch does."""


GATE = Gate()


class Gated(Embed):
    """The workload ``embed``, with batches that wait for the gate."""

    def warm_up(self) -> None:
        encode = self._model.encode

        def gated(inputs: Sequence[EmbedInput]) -> list[Any]:
            GATE.batches.append(len(inputs))
            GATE.open.wait(60)
            if GATE.fails and len(inputs) > GATE.fails:
                raise MemoryError("the batch is too large")
            return encode(inputs)

        self._batches._run = gated


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="embed", kind="online", implementation=f"{__name__}:Gated", capacity=16, batches=True
)


@pytest.fixture
def gate() -> Gate:
    GATE.__init__()  # type: ignore[misc]
    yield GATE
    GATE.open.set()


@pytest.fixture
def encoder(tmp_path: Path) -> Path:
    return tiny_encoder(tmp_path / "tiny")


@pytest.fixture
def whole(start_whole: Start, encoder: Path, gate: Gate) -> Any:
    """A gateway and one group, which accepts 4 requests at once and lets 6 texts wait."""
    return start_whole(pool_of(encoder, capacity=4, batching={"max_waiting": 6}))


def pool_of(folder: Path, **more: Any) -> dict[str, Any]:
    return {"vectors": {"workload": f"{__name__}:SPEC", "model": str(folder), **more}}


def test_texts_beyond_the_limit_of_waiting_texts_get_429_and_retry_after(whole: Any, gate: Gate) -> None:
    gate.open.clear()
    with ThreadPoolExecutor(4) as pool:
        running = pool.submit(whole.post, "/v1/embeddings", input="a cat")
        wait_until(lambda: gate.batches == [1], 30, "a batch")
        waiting = pool.submit(whole.post, "/v1/embeddings", input=["a cat"] * 4)
        wait_until(lambda: whole.debug("vectors")["load"]["waiting"] == 4, 30, "texts to wait")
        response = whole.client.post("/v1/embeddings", json={"input": ["a dog"] * 3})
        assert response.status_code == 429
        assert 1 <= int(response.headers["retry-after"]) <= 60
        error = response.json()["error"]
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        fitting = pool.submit(whole.post, "/v1/embeddings", input=["a bird"] * 2)
        wait_until(lambda: whole.debug("vectors")["load"]["waiting"] == 6, 30, "6 texts to wait")
        gate.open.set()
        assert [len(each.result(60)["data"]) for each in (running, waiting, fitting)] == [1, 4, 2]


def test_requests_beyond_the_capacity_wait_in_the_gateway_and_then_get_503(
    start_whole: Start, encoder: Path, gate: Gate
) -> None:
    whole = start_whole(pool_of(encoder, capacity=2), router={"max_waiting": 1})
    gate.open.clear()
    with ThreadPoolExecutor(3) as pool:
        held = [pool.submit(whole.post, "/v1/embeddings", input="a cat") for _ in range(2)]
        router = whole.api.context.serving_pools.get("vectors").router
        wait_until(lambda: router.in_flight == 2, 30, "two requests at the group")
        held.append(pool.submit(whole.post, "/v1/embeddings", input="a cat"))
        wait_until(lambda: router.waiting == 1, 30, "a request in the line")
        response = whole.client.post("/v1/embeddings", json={"input": "a cat"})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        assert response.json()["error"]["type"] == "server_error"
        gate.open.set()
        assert all(len(each.result(60)["data"]) == 1 for each in held)
    assert max(gate.batches) <= 2, "the group held more requests than its capacity"


def test_a_request_that_is_too_late_is_504_and_its_texts_are_not_computed(whole: Any, gate: Gate) -> None:
    gate.open.clear()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(whole.post, "/v1/embeddings", input="a cat")
        wait_until(lambda: gate.batches == [1], 30, "a batch")
        response = whole.client.post(
            "/v1/embeddings", json={"input": ["a dog"] * 3}, headers={"Daybreak-Deadline-S": "0.3"}
        )
        assert (response.status_code, response.json()["error"]["code"]) == (504, "deadline_passed")
        answered = time.monotonic()  # the deadline may pass later in the group, which got the request later
        wait_until(lambda: time.monotonic() > answered + 0.3, 30, "the deadline to pass in the group too")
        gate.open.set()
        running.result(60)
    whole.post("/v1/embeddings", input=["a bird"] * 2)
    assert gate.batches == [1, 2], "the group computed texts for which no client waited"


def test_the_timeout_of_the_settings_is_504(start_whole: Start, encoder: Path, gate: Gate) -> None:
    whole = start_whole(pool_of(encoder), router={"timeout_s": 0.5})
    gate.open.clear()
    assert whole.post("/v1/embeddings", 504, input="a cat")["error"]["code"] == "deadline_passed"
    gate.open.set()


def test_a_batch_that_is_too_much_for_the_memory_is_computed_in_halves(whole: Any, gate: Gate) -> None:
    gate.fails = 2
    answer = whole.post("/v1/embeddings", input=["a cat", "a dog", "a bird", "a tree", "a mat"])
    gate.fails = 0
    alone = [
        whole.post("/v1/embeddings", input=text) for text in ("a cat", "a dog", "a bird", "a tree", "a mat")
    ]
    for each, expected in zip(answer["data"], alone, strict=True):
        assert each["embedding"] == pytest.approx(expected["data"][0]["embedding"], abs=1e-4)


def test_a_model_that_hangs_breaks_its_group(start_whole: Start, encoder: Path, gate: Gate) -> None:
    """A request that waits for a batch must not count as progress."""
    whole = start_whole(pool_of(encoder, lease={"lease_s": 4.0, "stall_s": 1.0}))
    gate.open.clear()
    response = whole.client.post(
        "/v1/embeddings", json={"input": "a cat"}, headers={"Daybreak-Deadline-S": "30"}
    )
    assert response.status_code == 500
    (cause,) = wait_until(lambda: whole.broken["vectors"], 30, "the group to break")
    assert "no progress in a request" in cause.message


def test_requests_are_spread_over_the_groups_of_a_pool(start_whole: Start, encoder: Path, gate: Gate) -> None:
    whole = start_whole(pool_of(encoder, capacity=1), groups=2)
    gate.open.clear()
    with ThreadPoolExecutor(2) as pool:
        held = [pool.submit(whole.post, "/v1/embeddings", input="a cat") for _ in range(2)]
        wait_until(lambda: gate.batches == [1, 1], 30, "a batch in each group")
        gate.open.set()
        assert all(len(each.result(60)["data"]) == 1 for each in held)


def test_a_request_waits_for_the_first_group_of_its_pool(
    start_whole: Start, encoder: Path, gate: Gate
) -> None:
    whole = start_whole(pool_of(encoder), groups=0)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(whole.post, "/v1/embeddings", input="a cat", model="tiny")
        router = whole.api.context.serving_pools.get("vectors").router
        wait_until(lambda: router.waiting == 1, 30, "the request to wait")
        whole.start_group("vectors")
        assert len(waiting.result(60)["data"]) == 1
