"""Checks that a pool's keys are consistent: no half-accepted task, no entry without a record, no unknown key, and each
task in the set of its state and in no other."""

from __future__ import annotations

from collections import defaultdict

import redis

from daybreak_server.adapters.redis.key_names import Keys
from testkit.waiting import wait_until

_ENDED = {"succeeded", "failed", "cancelled", "expired"}


def inconsistencies(client: redis.Redis, keys: Keys, *, idle_timeout_s: float | None = 60.0) -> list[str]:
    """Wait until the pool is idle, and return a sentence for each inconsistency. ``client`` must decode responses.

    A pool may still be busy when all tasks that a client knows have ended: if the response to a submit was lost, the
    pool has a task that no client knows. The function waits for at most ``idle_timeout_s``. With ``None``, it does not
    wait.
    """
    if idle_timeout_s is not None:
        try:
            wait_until(lambda: _idle(client, keys), idle_timeout_s, "an idle pool")
        except TimeoutError as exc:
            return [str(exc)]
    families: dict[str, set[str]] = defaultdict(set)
    for name in client.scan_iter(match=f"{keys.base}*", count=2000):
        parsed = keys.parse(name)
        if parsed is None:
            families["?"].add(name)
        else:
            families[parsed[0]].add(parsed[1])
    tasks = families["task"]
    problems = [f"unknown key: {name}" for name in families["?"]]
    problems += [f"a record without parameters: {task}" for task in tasks - families["spec"]]
    for family in ("spec", "out", "ev", "preview"):
        problems += [f"{family} without a record: {task}" for task in families[family] - tasks]
    problems += _check_indexes(client, keys, families, tasks)
    return problems + _check_places(client, keys, families, tasks)


def _idle(client: redis.Redis, keys: Keys) -> bool:
    """Whether no task waits, is delayed or runs, read in one transaction."""
    with client.pipeline(transaction=True) as pipe:
        for name in ("live", "delayed", "due_soon"):
            pipe.zcard(keys.single(name))
        return not any(pipe.execute())


def _check_indexes(
    client: redis.Redis, keys: Keys, families: dict[str, set[str]], tasks: set[str]
) -> list[str]:
    indexed = {
        task for tenant in families["index"] for task in client.zrange(keys.of("index", tenant), 0, -1)
    }
    problems = [f"in no list: {task}" for task in tasks - indexed]
    problems += [f"in a list without a record: {task}" for task in indexed - tasks]
    for member in families["idempotency"]:
        known = (client.get(keys.of("idempotency", member)) or "").split(" ")[0]
        if known not in tasks:
            problems.append(f"an idempotency key of {known}, which has no record")
    return problems


def _check_places(
    client: redis.Redis, keys: Keys, families: dict[str, set[str]], tasks: set[str]
) -> list[str]:
    """Each task must be in the set of its state, and in no other set."""

    def members(name: str) -> set[str]:
        return set(client.zrange(keys.single(name), 0, -1))

    waiting = {task for tenant in families["wait"] for task in client.zrange(keys.of("wait", tenant), 0, -1)}
    places = {
        "queued": waiting,
        "delayed": members("delayed") | members("due_soon"),
        "running": members("leases"),
        "ended": members("expiring"),
    }
    problems = []
    for task in tasks:
        state = client.hget(keys.of("task", task), "state") or "?"
        expected = "ended" if state in _ENDED else state
        actual = {place for place, members_there in places.items() if task in members_there}
        if actual != {expected}:
            problems.append(f"{task} is {state} and in {sorted(actual) or 'no set'}")
    for place, members_there in places.items():
        problems += [f"{task} is in {place} without a record" for task in members_there - tasks]
    return problems
