"""Accounting: charged seconds add up, and no key is left over at the end."""

from __future__ import annotations

from collections.abc import Iterator

from verification.faults.checks.observations import TERMINAL, Observations, Violation

_SLACK_MS = 5.0


def charged(observations: Observations) -> Iterator[Violation]:
    """The charged time is the same in the tasks, the tenants' totals and the ledger.

    No task is charged for more than the time from its start to its end, times its number of ranks.
    """
    for pool, store in observations.stores.items():
        used = {task: (int(u or 0), int(w or 0)) for task, (u, w, *_) in store["usage"].items()}
        for column, name in enumerate(("used_ms", "wasted_ms")):
            total = sum(charges[column] for charges in used.values())
            tenants = sum(int(v) for key, v in store["tenant_totals"].items() if key.endswith(f":{name}"))
            ledger = sum(v for key, v in store["ledger"].items() if key.endswith(f":{name}"))
            if not total == ledger == tenants:
                what = f"{name} of {pool}: tasks {total}, ledger {ledger}, tenants {tenants}"
                yield Violation(kind="charge", task=None, what=what)
        for task, (u, w, _, started, finished) in store["usage"].items():
            record = observations.final_records.get(task)
            if record is None or record["state"] not in TERMINAL:
                continue
            ranks = _ranks(observations, task)
            wall = (float(finished) - float(started)) * ranks if started and finished else 0.0
            charged_ms = int(u or 0) + int(w or 0)
            if charged_ms > wall + _SLACK_MS * ranks:
                yield Violation(
                    kind="charge",
                    task=task,
                    what=f"charged {charged_ms} ms, but its ranks had only {wall:.0f} ms",
                )
            usage = record.get("usage") or {}
            reported_s = usage.get("gpu_seconds", 0.0) + usage.get("wasted_gpu_seconds", 0.0)
            if abs(reported_s * 1000 - charged_ms) > _SLACK_MS:
                what = f"the API reports {reported_s} s, the store {charged_ms} ms"
                yield Violation(kind="charge", task=task, what=what)
        yield from _shares(observations, pool)


def _shares(observations: Observations, pool: str) -> Iterator[Violation]:
    """A tenant's virtual time is at least the charged time of its tasks, divided by its weight.

    When an attempt starts, the store adds an estimate. When the attempt ends, the charge replaces that estimate.
    """
    store = observations.stores[pool]
    sums: dict[str, float] = {}
    for task, (u, w, *_) in store["usage"].items():
        tenant = observations.final_records.get(task, {}).get("tenant")
        if tenant is not None:
            sums[tenant] = sums.get(tenant, 0.0) + (int(u or 0) + int(w or 0)) / 1000
    for tenant, total in sums.items():
        weight = float(store["weights"].get(tenant, 1))
        share = float(store["shares"].get(tenant, 0))
        if share < total / weight - 0.01:
            what = f"tenant {tenant} of {pool}: share {share:.3f} s is less than {total:.3f} s used / weight {weight:g}"
            yield Violation(kind="charge", task=None, what=what)


def _ranks(observations: Observations, task: str) -> int:
    ranks = [
        event["data"].get("ranks", 1)
        for event in observations.streams.get(task, ())
        if event["type"] == "started"
    ]
    return max(ranks, default=1)


def keys(observations: Observations) -> Iterator[Violation]:
    """Every key has a known name. The keys of a task exist only while its record exists. Every preview has a TTL."""
    for pool, store in observations.stores.items():
        tasks = set(store["families"].get("task", []))
        for task in sorted(tasks ^ {t for t, r in observations.final_records.items() if r["pool"] == pool}):
            yield Violation(
                kind="key-left", task=task, what="it is only in the store, or only in the clients' lists"
            )
        for family in ("spec", "out", "ev", "preview"):
            for task in set(store["families"].get(family, [])) - tasks:
                yield Violation(kind="key-left", task=task, what=f"{family} without a record")
        for key in store["unknown_keys"]:
            yield Violation(kind="key-left", task=None, what=f"{key} is not a Daybreak key")
        for task in store["without_ttl"]:
            yield Violation(kind="key-left", task=task, what="its preview has no TTL")


def empty(observations: Observations) -> Iterator[Violation]:
    """When every task has ended, no queue, lease, timer or group still has a task, and every task has a retention."""
    if any(record["state"] not in TERMINAL for record in observations.final_records.values()):
        return
    for pool, store in observations.stores.items():
        for name in ("live", "leases", "tenants", "timers", "delayed", "due_soon", "groups_with_task"):
            if store[name]:
                yield Violation(
                    kind="key-left", task=None, what=f"{pool}: {name} still holds {store[name][:3]}"
                )
        for task in store["families"].get("wait", []):
            yield Violation(
                kind="key-left", task=None, what=f"{pool}: the queue of tenant {task} still exists"
            )
        tokens = [task for task, (_, _, token, *_) in store["usage"].items() if token]
        for task in tokens:
            yield Violation(kind="key-left", task=task, what="has ended and still holds a token")
        ended = {task for task, record in observations.final_records.items() if record["pool"] == pool}
        for task in sorted(ended ^ set(store["expiring"])):
            yield Violation(
                kind="key-left",
                task=task,
                what="it has ended without retention, or has retention without having ended",
            )
