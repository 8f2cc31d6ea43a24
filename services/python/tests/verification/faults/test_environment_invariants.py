"""The consistency check of a store finds every planted inconsistency, and nothing in a consistent store."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import NewTask
from testkit.valkey import Server
from verification.faults.environment.invariants import inconsistencies

KEYS = Keys(prefix="daybreak", pool="echo")


async def _submitted(url: str) -> str:
    store = RedisStore(url)
    task = new_task_id("echo")
    await store.submit([NewTask(id=task, pool="echo", tenant="t", input_json="{}", idempotency_key="k")])
    await store.close()
    return task


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda client, task: None, ""),
        (lambda client, task: client.delete(KEYS.of("spec", task)), "a record without parameters"),
        (lambda client, task: client.delete(KEYS.of("task", task)), "spec without a record"),
        (lambda client, task: client.delete(KEYS.of("wait", "t")), "is queued and in no set"),
        (lambda client, task: client.delete(KEYS.of("index", "t")), "in no list"),
        (lambda client, task: client.zadd(KEYS.single("leases"), {task: 1}), "and in ['queued', 'running']"),
        (lambda client, task: client.set(KEYS.base + "else", 1), "unknown key"),
    ],
)
async def test_every_inconsistency_is_found(
    valkey: Server, damage: Callable[[redis.Redis, str], object], problem: str
) -> None:
    """The first case plants no inconsistency. Each other case plants a different one."""
    task = await _submitted(valkey.url)
    with valkey.client(decode_responses=True) as client:
        damage(client, task)
        problems = inconsistencies(client, KEYS, idle_timeout_s=None)
    assert (problem in "; ".join(problems)) if problem else not problems
