"""Histories written by hand: `story` is a history without violations, and each test plants one error in it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(
    0, str(Path(__file__).resolve().parents[3])
)  # the package `verification` is beside the server, not in it

from verification.faults.checks.observations import echo_digest

TASK = "solo_01JDAAAAAAAAAAAAAAAAAAAAAA"
SHA = echo_digest("m1", 2)


def event(number: int, kind: str, attempt: int, **data: Any) -> dict[str, Any]:
    return {"id": f"{1000 + number}-0", "type": kind, "attempt": attempt, "data": data}


def accounting() -> dict[str, Any]:
    """The contents of the store when the task has ended."""
    return {
        **{name: [] for name in ("dead", "live", "leases", "tenants", "timers", "delayed", "due_soon")},
        **{name: [] for name in ("garbage", "unknown_keys", "groups_with_task", "without_ttl")},
        "expiring": [TASK],
        "tenant_totals": {"ada:used_ms": "1000", "ada:wasted_ms": "500"},
        "ledger": {"ada:used_ms": 1000, "ada:wasted_ms": 500},
        "shares": {"ada": "1.5"},
        "weights": {},
        "usage": {TASK: ["1000", "500", None, "0", "9000"]},
        "families": {"task": [TASK], "spec": [TASK], "out": [TASK], "ev": [TASK]},
    }


class Story:
    """A history that a test can change. Its one task loses an attempt and then succeeds with one artifact."""

    def __init__(self) -> None:
        self.artifact = {"name": "echo.txt", "size_bytes": 80, "sha256": SHA}
        usage = {"gpu_seconds": 1.0, "wasted_gpu_seconds": 0.5}
        self.events = [
            event(0, "queued", 0, position=1),
            event(1, "started", 1, ranks=1),
            event(2, "progress", 1, step=1, steps=2, fraction=0.5),
            event(3, "retrying", 1, reason="lease_lost", strikes=1),
            event(4, "started", 2, ranks=1),
            event(5, "progress", 2, step=1, steps=2, fraction=0.5),
            event(6, "progress", 2, step=2, steps=2, fraction=1.0),
            event(7, "artifact", 2, **self.artifact),
            event(8, "succeeded", 2, artifacts=[self.artifact], usage=usage),
        ]
        self.record: dict[str, Any] = {
            "id": TASK,
            "pool": "solo",
            "tenant": "ada",
            "state": "succeeded",
            "attempt": 2,
            "strikes": 1,
            "max_strikes": 3,
            "releases": 0,
            "input": {"message": "m1", "steps": 2},
            "metadata": {"key": "key-1"},
            "artifacts": [self.artifact],
            "usage": usage,
        }
        self.seen = copy.deepcopy(self.events)
        self.relayed = copy.deepcopy(self.events)
        self.calls: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
            (
                "submit",
                {"key": "key-1", "tenant": "ada", "pool": "solo"},
                "ok",
                {"task": TASK, "state": "queued"},
            ),
            ("submit", {"key": "key-1", "tenant": "ada", "pool": "solo"}, "unknown", {"error": "lost"}),
            ("get", {"task": TASK}, "ok", {"task": TASK, "state": "running", "attempt": 1, "strikes": 0}),
            ("list", {"tenant": "ada", "pool": "solo"}, "ok", {"tasks": {TASK: "running"}, "count": 1}),
        ]
        self.later: list[tuple[str, dict[str, Any], str, dict[str, Any]]] = [
            ("download", {"task": TASK, "name": "echo.txt"}, "ok", {"sha256": SHA, "size": 80}),
            ("get", {"task": TASK}, "ok", {"task": TASK, "state": "succeeded", "attempt": 2, "strikes": 1}),
        ]
        self.final_records = {TASK: self.record}
        self.left: list[str] = []
        self.reader_ended = True
        self.store = accounting()
        self.files = [f"{TASK}/2.abc/echo.txt"]
        self.extra: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = [{"op": "run", "kind": "begin", "wall": 0.0}]

        def calls(some: list[tuple[str, dict[str, Any], str, dict[str, Any]]]) -> None:
            for op, request, kind, response in some:
                number = sum(1 for line in lines if line["kind"] == "invoke") + 1
                lines.append({"op": op, "kind": "invoke", "i": number, **request})
                lines.append({"op": op, "kind": kind, "i": number, **response})

        calls(self.calls)
        lines.append({"op": "reader", "kind": "begin", "reader": "r1", "task": TASK})
        lines.extend(
            {"op": "event", "kind": "saw", "reader": "r1", "task": TASK, **event} for event in self.seen
        )
        if self.reader_ended:
            lines.append({"op": "reader", "kind": "end", "reader": "r1", "task": TASK})
        lines.extend(
            {"op": "relay", "kind": "saw", "pool": "solo", "task": TASK, **event} for event in self.relayed
        )
        calls(self.later)
        lines.extend(self.extra)
        lines.append({"op": "settled", "kind": "saw", "left": self.left})
        lines.extend(
            {"op": "final", "kind": "saw", "task": t, "record": r} for t, r in self.final_records.items()
        )
        lines.append({"op": "stream", "kind": "saw", "task": TASK, "events": self.events})
        lines.append({"op": "store", "kind": "saw", "pool": "solo", **self.store})
        lines.append({"op": "files", "kind": "saw", "files": self.files})
        return [{**line, "t": float(at)} for at, line in enumerate(lines)]


@pytest.fixture
def story() -> Story:
    return Story()
