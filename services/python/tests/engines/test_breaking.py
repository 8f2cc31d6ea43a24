"""Two threads may find that a group is broken.

The process may end when either of them returns, so neither returns before everything is settled.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2 as httpx
import pytest

from daybreak_server.adapters.redis.queue import RedisQueue
from daybreak_server.domain.tasks import Failed
from daybreak_server.engines.ranks.rank_lifecycle import Rank
from daybreak_server.engines.serving import http_app
from testkit.pools import Pool
from testkit.waiting import wait_until

LOST = Failed(code="rank_lost", message="rank 1 has ended")


def break_twice(rank: Rank, done: Callable[[], bool]) -> list[bool]:
    """Break the group on two threads, and return whether all was done when each of them had returned."""
    seen: list[bool] = []
    loop = rank._loop
    assert loop is not None

    def break_group() -> None:
        loop.break_group(LOST)
        seen.append(done())

    threads = [threading.Thread(target=break_group) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return seen


def test_requests_have_their_answers(
    serving: Callable[..., tuple[Pool, Rank, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request has its answer before either thread returns, even if the answer is sent slowly.

    The answer makes a gateway send the request to another group.
    """
    pool, rank, url = serving(on_broken=lambda _: None)
    sent, answers = threading.Event(), []
    send = http_app._send_problem

    async def send_slowly(*arguments: Any) -> None:
        await asyncio.sleep(0.5)
        await send(*arguments)
        sent.set()

    monkeypatch.setattr(http_app, "_send_problem", send_slowly)
    client = threading.Thread(
        target=lambda: answers.append(httpx.post(url, json={"latency_s": 30}, timeout=60))
    )
    client.start()

    def runs() -> bool:
        (group,) = pool.view().groups
        return group.load is not None and group.load.in_flight == 1

    wait_until(runs, 60, "the request to run")
    assert break_twice(rank, sent.is_set) == [True, True]
    client.join(60)
    assert [(answer.status_code, answer.headers["daybreak-refused"]) for answer in answers] == [
        (503, "broken")
    ]


def test_the_task_has_its_strike(
    pools: Callable[..., Pool], leader: Callable[..., Rank], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task has its strike before either thread returns, even if the settlement is slow."""
    pool = pools(lease={"lease_s": 60.0})
    rank = leader(pool, on_broken=lambda _: None)
    settled = threading.Event()
    settle = RedisQueue.settle

    def settle_slowly(*arguments: Any, **options: Any) -> Any:
        time.sleep(0.5)
        result = settle(*arguments, **options)
        settled.set()
        return result

    monkeypatch.setattr(RedisQueue, "settle", settle_slowly)
    task = pool.submit(message="b", steps=200, step_s=0.05)
    pool.wait_step(task)
    assert break_twice(rank, settled.is_set) == [True, True]
    assert pool.get(task).strikes == 1
