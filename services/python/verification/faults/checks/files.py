"""Files: every visible artifact can be read and matches its SHA-256; no other file is left."""

from __future__ import annotations

from collections.abc import Iterator

from daybreak_server.ports.blobs import probed_at_ms
from verification.faults.checks.observations import Observations, Violation, echo_digest


def readable(observations: Observations) -> Iterator[Violation]:
    """Every artifact that a task shows can be read and matches its published size and SHA-256."""
    published = {
        (task, artifact["name"]): artifact
        for task, record in observations.final_records.items()
        for artifact in record.get("artifacts", ())
    }
    read = set()
    for call in observations.calls_to("download", None):
        key = (call.request["task"], call.request["name"])
        if call.kind != "ok":
            if call.ended != float("inf"):
                yield Violation(kind="unreadable", task=key[0], what=f"{key[1]}: {call.response['error']}")
            continue
        read.add(key)
        ref = published.get(key)
        if ref is not None and (ref["sha256"], ref["size_bytes"]) != (
            call.response["sha256"],
            call.response["size"],
        ):
            what = f"{key[1]}: published {ref['sha256'][:12]}, got {call.response['sha256'][:12]}"
            yield Violation(kind="hash", task=key[0], what=what)
    if observations.streams:  # then the history also has a final read of each artifact
        for task, name in sorted(set(published) - read):
            if task in observations.streams:
                yield Violation(kind="unreadable", task=task, what=f"{name} was never read")


def published(observations: Observations) -> Iterator[Violation]:
    """Only a succeeded task shows artifacts, and its terminal event names the same ones as its record."""
    for task, record in observations.final_records.items():
        named = sorted((artifact["name"], artifact["sha256"]) for artifact in record.get("artifacts", ()))
        if record["state"] != "succeeded":
            if named:
                yield Violation(kind="published", task=task, what=f"{record['state']} shows {named}")
            continue
        events = observations.streams.get(task)
        if events and events[-1]["type"] == "succeeded":
            artifacts = events[-1]["data"]["artifacts"]
            if sorted((artifact["name"], artifact["sha256"]) for artifact in artifacts) != named:
                yield Violation(kind="published", task=task, what="the event and the record differ")


def same_seed(observations: Observations) -> Iterator[Violation]:
    """The same input gives the same bytes, no matter how often the task was interrupted."""
    for task, record in observations.final_records.items():
        params = record.get("input") or {}
        if record["state"] != "succeeded" or "steps" not in params:
            continue
        expected = echo_digest(params.get("message", "hello"), params["steps"])
        for artifact in record.get("artifacts", ()):
            if artifact["name"] == "echo.txt" and artifact["sha256"] != expected:
                what = f"SHA-256 {artifact['sha256'][:12]}, expected {expected[:12]}"
                yield Violation(kind="seed", task=task, what=what)


def nothing_left(observations: Observations) -> Iterator[Violation]:
    """Every file belongs to an artifact or will be deleted.

    Three kinds of files will be deleted:

    * files in the store's garbage list;
    * checkpoints that their leader stored but did not report, because it died: they are deleted with the folder of
      their task when the task's retention ends;
    * probe files, which ranks write to test the blob store: if a rank is killed before it deletes its probe file,
      gateways delete the file after a day.
    """
    if observations.files is None or not observations.stores:
        return
    garbage = tuple(prefix for store in observations.stores.values() for prefix in store["garbage"])
    swept = {task for store in observations.stores.values() for task in store["expiring"]}
    for file in observations.files:
        task, _, subpath = file.partition("/")
        if probed_at_ms(file) is not None:
            continue
        if file.startswith(garbage) or (subpath.startswith("checkpoints/") and task in swept):
            continue
        record = observations.final_records.get(task)
        names = [artifact["name"] for artifact in (record or {}).get("artifacts", ())]
        if file.rpartition("/")[2].removeprefix("~type-") not in names:
            yield Violation(kind="file-left", task=task, what=f"{subpath} belongs to no artifact")
