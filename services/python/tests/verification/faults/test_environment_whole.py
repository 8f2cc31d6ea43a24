"""The look at what a store holds finds what is there in part, and nothing where all is right."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import redis

from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.store import RedisStore
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import NewTask
from testkit.valkey import Server
from verification.faults.environment.invariants import half_done

KEYS = Keys(prefix="daybreak", pool="echo")


async def _submitted(url: str) -> str:
    store = RedisStore(url)
    task = new_task_id("echo")
    await store.submit([NewTask(id=task, pool="echo", tenant="t", input_json="{}", idempotency_key="k")])
    await store.close()
    return task


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda client, task: None, ""),
        (lambda client, task: client.delete(KEYS.of("spec", task)), "a record without parameters"),
        (lambda client, task: client.delete(KEYS.of("task", task)), "spec without a record"),
        (lambda client, task: client.delete(KEYS.of("wait", "t")), "is queued and lies in no place"),
        (lambda client, task: client.delete(KEYS.of("index", "t")), "in no list"),
        (lambda client, task: client.zadd(KEYS.one("leases"), {task: 1}), "lies in ['queued', 'running']"),
        (lambda client, task: client.set(KEYS.base + "else", 1), "a key of no known kind"),
    ],
)
async def test_halves_are_found(
    valkey: Server, harm: Callable[[redis.Redis, str], object], said: str
) -> None:
    """Each kind of half, planted."""
    task = await _submitted(valkey.url)
    with valkey.client(decode_responses=True) as client:
        harm(client, task)
        found = half_done(client, KEYS, rest_s=None)
    assert (said in "; ".join(found)) if said else not found
