"""Files: a result that can be seen can be read, and is what its hash says."""

from __future__ import annotations

from collections.abc import Iterator

from daybreak_server.ports.blobs import probed_at_ms
from verification.faults.checks.observations import Observations, Violation, echo_digest


def readable(told: Observations) -> Iterator[Violation]:
    """Whatever a succeeded task shows could be read, and was what it said."""
    published = {
        (task, one["name"]): one
        for task, record in told.finals.items()
        for one in record.get("artifacts", ())
    }
    read = set()
    for call in told.of("download", None):
        key = (call.asked["task"], call.asked["name"])
        if call.kind != "ok":
            if call.ended != float("inf"):
                yield Violation(kind="unreadable", task=key[0], what=f"{key[1]}: {call.got['error']}")
            continue
        read.add(key)
        ref = published.get(key)
        if ref is not None and (ref["sha256"], ref["size_bytes"]) != (call.got["sha256"], call.got["size"]):
            what = f"{key[1]}: published {ref['sha256'][:12]}, got {call.got['sha256'][:12]}"
            yield Violation(kind="hash", task=key[0], what=what)
    if told.streams:  # everything was read in the end
        for task, name in sorted(set(published) - read):
            if task in told.streams:
                yield Violation(kind="unreadable", task=task, what=f"{name} was never read")


def published(told: Observations) -> Iterator[Violation]:
    """Only a success shows artifacts, and the terminal event names the same as the record."""
    for task, record in told.finals.items():
        named = sorted((one["name"], one["sha256"]) for one in record.get("artifacts", ()))
        if record["state"] != "succeeded":
            if named:
                yield Violation(kind="published", task=task, what=f"{record['state']} shows {named}")
            continue
        events = told.streams.get(task)
        if events and events[-1]["type"] == "succeeded":
            said = sorted((one["name"], one["sha256"]) for one in events[-1]["data"]["artifacts"])
            if said != named:
                yield Violation(kind="published", task=task, what="the event and the record differ")


def same_seed(told: Observations) -> Iterator[Violation]:
    """The same input gives the same bytes, however often it was interrupted."""
    for task, record in told.finals.items():
        asked = record.get("input") or {}
        if record["state"] != "succeeded" or "steps" not in asked:
            continue
        want = echo_digest(asked.get("message", "hello"), asked["steps"])
        for one in record.get("artifacts", ()):
            if one["name"] == "echo.txt" and one["sha256"] != want:
                yield Violation(
                    kind="seed", task=task, what=f"{one['sha256'][:12]} where {want[:12]} is right"
                )


def nothing_left(told: Observations) -> Iterator[Violation]:
    """Every file belongs to a success, or is marked to be deleted: at once, or (a checkpoint that was stored and
    never told of) with its task, whose folder goes when its retention ends; or it is of a probe that was killed, which
    gateways find after a day."""
    if told.files is None or not told.stores:
        return
    garbage = tuple(prefix for store in told.stores.values() for prefix in store["garbage"])
    swept = {task for store in told.stores.values() for task in store["expiring"]}
    for file in told.files:
        task, _, rest = file.partition("/")
        if probed_at_ms(file) is not None:
            continue
        if file.startswith(garbage) or (rest.startswith("checkpoints/") and task in swept):
            continue
        record = told.finals.get(task)
        names = [one["name"] for one in (record or {}).get("artifacts", ())]
        if file.rpartition("/")[2].removeprefix("~type-") not in names:
            yield Violation(kind="file-left", task=task, what=f"{rest} belongs to nothing")
