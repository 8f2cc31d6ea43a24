"""Whether what a store holds fits together: no half-accepted task, no entry without its record, none twice."""

from __future__ import annotations

from collections import defaultdict

import redis

from daybreak_server.adapters.redis.key_names import Keys
from testkit.waiting import wait_until

_ENDED = {"succeeded", "failed", "cancelled", "expired"}


def half_done(client: redis.Redis, keys: Keys, *, rest_s: float | None = 60.0) -> list[str]:
    """A sentence for each thing that is there in part, once the pool is at rest. ``client`` decodes answers.

    A pool may be at work when all tasks have ended that a client knows of: whose answers were lost are there too.
    ``rest_s`` is how long it may be, in seconds; ``None``: it is looked at as it is.
    """
    if rest_s is not None:
        try:
            wait_until(lambda: _at_rest(client, keys), rest_s, "a pool at rest")
        except TimeoutError as exc:
            return [str(exc)]
    families: dict[str, set[str]] = defaultdict(set)
    for name in client.scan_iter(match=f"{keys.base}*", count=2000):
        found = keys.parse(name)
        if found is None:
            families["?"].add(name)
        else:
            families[found[0]].add(found[1])
    tasks = families["task"]
    said = [f"a key of no known kind: {name}" for name in families["?"]]
    said += [f"a record without parameters: {task}" for task in tasks - families["spec"]]
    for family in ("spec", "out", "ev", "preview"):
        said += [f"{family} without a record: {task}" for task in families[family] - tasks]
    said += _indexed(client, keys, families, tasks)
    return said + _placed(client, keys, families, tasks)


def _at_rest(client: redis.Redis, keys: Keys) -> bool:
    """No task waits, is delayed or runs, as one moment shows it."""
    with client.pipeline(transaction=True) as pipe:
        for name in ("live", "delayed", "due_soon"):
            pipe.zcard(keys.one(name))
        return not any(pipe.execute())


def _indexed(client: redis.Redis, keys: Keys, families: dict[str, set[str]], tasks: set[str]) -> list[str]:
    indexed = {
        task for tenant in families["index"] for task in client.zrange(keys.of("index", tenant), 0, -1)
    }
    said = [f"in no list: {task}" for task in tasks - indexed]
    said += [f"in a list without a record: {task}" for task in indexed - tasks]
    for member in families["idem"]:
        known = (client.get(keys.of("idem", member)) or "").split(" ")[0]
        if known not in tasks:
            said.append(f"an idempotency key of {known}, which is not there")
    return said


def _placed(client: redis.Redis, keys: Keys, families: dict[str, set[str]], tasks: set[str]) -> list[str]:
    """Each task is in exactly the place that its state says."""

    def members(name: str) -> set[str]:
        return set(client.zrange(keys.one(name), 0, -1))

    waiting = {task for tenant in families["wait"] for task in client.zrange(keys.of("wait", tenant), 0, -1)}
    places = {
        "queued": waiting,
        "delayed": members("delayed") | members("due_soon"),
        "running": members("leases"),
        "ended": members("expiring"),
    }
    said = []
    for task in tasks:
        state = client.hget(keys.of("task", task), "state") or "?"
        right = "ended" if state in _ENDED else state
        where = {place for place, there in places.items() if task in there}
        if where != {right}:
            said.append(f"{task} is {state} and lies in {sorted(where) or 'no place'}")
    for place, there in places.items():
        said += [f"{task} lies in {place} without a record" for task in there - tasks]
    return said
