"""Compares a pool on a real server with the pure model: records, queues, shares, clocks, deadlines, leases."""

from __future__ import annotations

from typing import Any

from daybreak_server.domain.tasks import State, TaskRecord
from testkit.store_driver import Driver
from verification.queue_model.pool import ModelPool
from verification.queue_model.state import ModelTask

_ZSETS = ("garbage", "expiring", "timers", "leases")


def assert_same(driver: Driver, model: ModelPool) -> None:
    """Assert that store and model agree, to the last bit, on everything that influences the course of a task."""
    names = list(model.tasks)
    for name, record in zip(names, driver.get_all(names), strict=True):
        assert record is not None, f"{name} is gone"
        assert _of_record(record) == _of_model(model.tasks[name])
    queue, keys = model.queue, driver.keys
    tenants = queue.tenants()
    groups = list(model.groups)
    with driver.client.pipeline(transaction=False) as pipe:  # one round trip: this runs after every step
        pipe.zrange(keys.single("tenants"), 0, -1)
        pipe.hgetall(keys.single("shares"))
        pipe.hmget(keys.single("meta"), ["vtime", "lease_clock", "mean_s"])
        for name in _ZSETS:
            pipe.zrange(keys.single(name), 0, -1, withscores=True)
        for tenant in tenants:
            pipe.zrange(keys.of("wait", tenant), 0, -1)
        for group in groups:
            pipe.hget(keys.of("group", group), "tasks")
        pipe.hgetall(keys.single("totals"))
        pipe.hgetall(keys.single("tenant_totals"))
        stored, shares, numbers, *replies, totals, billed = pipe.execute()
    pending = sum(task.used_ms for task in model.tasks.values() if not task.state.terminal)
    assert _counts(totals) == {
        name: count for name, count in (model.totals.counts | {"pending_ms": pending}).items() if count
    }
    assert {name.decode(): int(ms) for name, ms in billed.items()} == {
        f"{tenant}:{kind}": ms
        for tenant, times in model.totals.billed.items()
        for kind, ms in zip(("used_ms", "wasted_ms"), times, strict=True)
    }
    held = [(task or b"").decode().split() for task in replies[len(replies) - len(groups) :]]
    assert held == [model.groups[group].tasks for group in groups]
    assert [name.decode() for name in stored] == tenants
    assert {name.decode(): float(at) for name, at in shares.items()} == queue.shares
    vtime, lease_clock, mean_s = numbers
    assert (float(vtime or 0), int(lease_clock or 0)) == (queue.vtime, model.lease_clock)
    assert (float(mean_s) if mean_s else None) == model.mean_s
    zsets = [{member.decode(): score for member, score in members} for members in replies[: len(_ZSETS)]]
    assert dict(zip(_ZSETS, zsets, strict=True)) == _zsets(model)
    for tenant, ids in zip(tenants, replies[len(_ZSETS) : len(replies) - len(groups)], strict=True):
        assert [task.decode() for task in ids] == list(queue.waiting(tenant))


_UNMODELLED = {"note", "tenants_max", "metered", "matched", "idle_ms", "cold_ms", "serving_ms", "wakes"}
"""Fields of the hash `totals` that are not compared. Some are totals of what groups report about themselves; the model
has no such reports. `note` and `tenants_max` are not totals."""


def _counts(totals: dict[bytes, bytes]) -> dict[str, int]:
    counts = {name.decode(): count for name, count in totals.items()}
    return {name: int(count) for name, count in counts.items() if name not in _UNMODELLED and count != b"0"}


def _zsets(model: ModelPool) -> dict[str, dict[str, int]]:
    waiting = [task for task in model.tasks.values() if task.state in (State.QUEUED, State.DELAYED)]
    return {
        "garbage": model.garbage,
        "expiring": model.expiring,
        "timers": {task.new.id: task.deadline for task in waiting if task.deadline is not None},
        "leases": {
            task.new.id: task.running.lease_end for task in model.tasks.values() if task.running is not None
        },
    }


def _of_record(r: TaskRecord) -> dict[str, Any]:
    return {
        "state": r.state,
        "attempt": r.attempt,
        "strikes": r.strikes,
        "releases": r.releases,
        "started": r.started_ms,
        "finished": r.finished_ms,
        "expires": r.expires_ms,
        "cancel": r.cancel_requested,
        "artifacts": r.artifacts,
        "used": r.gpu_seconds or 0.0,
        "wasted": r.wasted_gpu_seconds or 0.0,
        "error": (r.error_code, r.error_message, r.error_attempt),
        "resumed": r.resumed_from_step,
        "replay_of": r.replay_of,
    }


def _of_model(t: ModelTask) -> dict[str, Any]:
    error = t.error or {}
    return {
        "state": t.state,
        "attempt": t.attempt,
        "strikes": t.strikes,
        "releases": t.releases,
        "started": t.started_ms,
        "finished": t.finished_ms,
        "expires": t.expires_ms,
        "cancel": t.cancel_at is not None,
        "artifacts": t.artifacts if t.state is State.SUCCEEDED else (),
        "used": t.used_ms / 1000,
        "wasted": t.wasted_ms / 1000,
        "error": (error.get("code"), error.get("message"), error.get("attempt")),
        "resumed": t.resumed_from_step,
        "replay_of": t.new.replay_of,
    }
