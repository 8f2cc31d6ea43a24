"""A history, sorted by what it is about."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from verification.faults.history import Line

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A promise that was broken."""

    kind: str
    task: str | None
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A call by a client: when it began and ended, and what came of it."""

    op: str
    began: float
    ended: float
    kind: str
    asked: Mapping[str, Any]
    got: Mapping[str, Any]


@dataclass(slots=True)
class Observations:
    """All that a history tells."""

    calls: list[Call] = field(default_factory=list)
    readers: dict[str, list[Line]] = field(default_factory=dict)
    """The events of each reader, in the order in which it saw them."""
    ended_readers: set[str] = field(default_factory=set)
    reader_task: dict[str, str] = field(default_factory=dict)
    relays: dict[str, list[Line]] = field(default_factory=dict)
    """What a relay handed out, by task."""
    relay_gaps: list[Line] = field(default_factory=list)
    finals: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last record of each task."""
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The stored events of each task, read when all was over."""
    stores: dict[str, Line] = field(default_factory=dict)
    files: list[str] | None = None
    left: list[str] | None = None
    """Tasks that had not ended within their bound."""
    over: bool = False
    """Whether the final reads are there: what is only true at the end is only checked then."""
    failed_clients: list[Line] = field(default_factory=list)
    other: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def of(self, op: str, kind: str | None = "ok") -> list[Call]:
        """The calls of one operation."""
        return [call for call in self.calls if call.op == op and kind in (None, call.kind)]

    @property
    def accepted(self) -> dict[str, Call]:
        """The first answer that named each task."""
        found: dict[str, Call] = {}
        for call in self.of("submit"):
            found.setdefault(call.got["task"], call)
        return found

    def counts(self) -> dict[str, int]:
        """Lines by operation and kind."""
        return dict(self.other)


def gather(lines: Iterable[Line]) -> Observations:
    """Sort a history."""
    told = Observations()
    begun: dict[int, Line] = {}
    for line in lines:
        told.other[f"{line['op']}.{line['kind']}"] += 1
        if line["kind"] == "invoke":
            begun[line["i"]] = line
        elif "i" in line:
            asked = begun.pop(line["i"])
            told.calls.append(
                Call(
                    op=line["op"], began=asked["t"], ended=line["t"], kind=line["kind"], asked=asked, got=line
                )
            )
        else:
            _seen(told, line)
    for asked in begun.values():
        told.calls.append(
            Call(op=asked["op"], began=asked["t"], ended=float("inf"), kind="unknown", asked=asked, got={})
        )
    return told


def _seen(told: Observations, line: Line) -> None:
    match line["op"], line["kind"]:
        case "reader", "begin":
            told.readers[line["reader"]] = []
            told.reader_task[line["reader"]] = line["task"]
        case "reader", "end":
            told.ended_readers.add(line["reader"])
        case "event", _:
            told.readers.setdefault(line["reader"], []).append(line)
            told.reader_task.setdefault(line["reader"], line["task"])
        case "relay", "gap":
            told.relay_gaps.append(line)
        case "relay", _:
            told.relays.setdefault(line["task"], []).append(line)
        case "final", _:
            told.over = True
            told.finals[line["task"]] = line["record"]
        case "stream", _:
            told.streams[line["task"]] = line["events"]
        case "store", _:
            told.over = True
            told.stores[line["pool"]] = line
        case "files", _:
            told.files = line["files"]
        case "settled", _:
            told.left = line["left"]
        case "client", _:
            told.failed_clients.append(line)


def place(event_id: str) -> tuple[int, int]:
    """An event id as a pair in the order of events."""
    first, _, second = event_id.partition("-")
    return int(first), int(second)


def echo_digest(message: str, steps: int) -> str:
    """SHA-256 of the ``echo.txt`` that an uninterrupted run leaves, computed on its own."""
    digest = hashlib.sha256(message.encode()).hexdigest()
    for number in range(1, steps + 1):
        digest = hashlib.sha256(f"{digest}/{number}".encode()).hexdigest()
    return hashlib.sha256(f"{message}\n{steps} steps {digest}\n".encode()).hexdigest()
