"""Histories written by hand: `tale` is one of a task that went well, and each test plants one lie in it."""

from __future__ import annotations

import copy
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(
    0, str(Path(__file__).resolve().parents[3])
)  # the lab lies beside the tests, not in the package

from verification.faults.checks.observations import echo_digest

TASK = "solo_01JDAAAAAAAAAAAAAAAAAAAAAA"
SHA = echo_digest("m1", 2)


def event(number: int, kind: str, attempt: int, **data: Any) -> dict[str, Any]:
    return {"id": f"{1000 + number}-0", "type": kind, "attempt": attempt, "data": data}


def books() -> dict[str, Any]:
    """What the store holds when the task has ended."""
    return {
        **{name: [] for name in ("dead", "live", "leases", "tenants", "timers", "delayed", "due_soon")},
        **{name: [] for name in ("garbage", "strange", "groups_with_task", "without_ttl")},
        "expiring": [TASK],
        "meta": {"used_ms": "1000", "wasted_ms": "500"},
        "ledger": {"ada:used_ms": 1000, "ada:wasted_ms": 500},
        "shares": {"ada": "1.5"},
        "weights": {},
        "usage": {TASK: ["1000", "500", None, "0", "9000"]},
        "families": {"task": [TASK], "spec": [TASK], "out": [TASK], "ev": [TASK]},
    }


class Tale:
    """A history whose parts a test can change. One task: a lost attempt, then a success with one artifact."""

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
        self.finals = {TASK: self.record}
        self.left: list[str] = []
        self.reader_ended = True
        self.store = books()
        self.files = [f"{TASK}/2.abc/echo.txt"]
        self.extra: list[dict[str, Any]] = []

    def lines(self) -> list[dict[str, Any]]:
        told: list[dict[str, Any]] = [{"op": "run", "kind": "begin", "wall": 0.0}]

        def calls(some: list[tuple[str, dict[str, Any], str, dict[str, Any]]]) -> None:
            for op, asked, kind, got in some:
                number = sum(1 for line in told if line["kind"] == "invoke") + 1
                told.append({"op": op, "kind": "invoke", "i": number, **asked})
                told.append({"op": op, "kind": kind, "i": number, **got})

        calls(self.calls)
        told.append({"op": "reader", "kind": "begin", "reader": "r1", "task": TASK})
        told.extend({"op": "event", "kind": "saw", "reader": "r1", "task": TASK, **one} for one in self.seen)
        if self.reader_ended:
            told.append({"op": "reader", "kind": "end", "reader": "r1", "task": TASK})
        told.extend(
            {"op": "relay", "kind": "saw", "pool": "solo", "task": TASK, **one} for one in self.relayed
        )
        calls(self.later)
        told.extend(self.extra)
        told.append({"op": "settled", "kind": "saw", "left": self.left})
        told.extend({"op": "final", "kind": "saw", "task": t, "record": r} for t, r in self.finals.items())
        told.append({"op": "stream", "kind": "saw", "task": TASK, "events": self.events})
        told.append({"op": "store", "kind": "saw", "pool": "solo", **self.store})
        told.append({"op": "files", "kind": "saw", "files": self.files})
        return [{**line, "t": float(at)} for at, line in enumerate(told)]


@pytest.fixture
def tale() -> Tale:
    return Tale()
