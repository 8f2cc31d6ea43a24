"""The lines of a history, sorted by subject for the checks."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from testkit.echo import echo_text
from verification.faults.history import Line

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """A broken promise."""

    kind: str
    task: str | None
    what: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A client's call: when it began and ended, and its result."""

    op: str
    began: float
    ended: float
    kind: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]


@dataclass(slots=True)
class Observations:
    """The contents of a history."""

    calls: list[Call] = field(default_factory=list)
    readers: dict[str, list[Line]] = field(default_factory=dict)
    """The events of each reader, in the order in which it saw them."""
    ended_readers: set[str] = field(default_factory=set)
    reader_task: dict[str, str] = field(default_factory=dict)
    relays: dict[str, list[Line]] = field(default_factory=dict)
    """The events that relays delivered, by task."""
    relay_gaps: list[Line] = field(default_factory=list)
    final_records: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The last record of each task."""
    streams: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """The stored events of each task, read at the end."""
    stores: dict[str, Line] = field(default_factory=dict)
    files: list[str] | None = None
    unfinished: list[str] | None = None
    """Tasks that had not ended within the time limit."""
    complete: bool = False
    """Whether the history has what was read at the end of the run. Some checks apply only to a complete history."""
    failed_clients: list[Line] = field(default_factory=list)
    line_counts: Counter[str] = field(default_factory=Counter)

    def calls_to(self, op: str, kind: str | None = "ok") -> list[Call]:
        """The calls of one operation that ended as ``kind``; with ``None``, all calls of the operation."""
        return [call for call in self.calls if call.op == op and kind in (None, call.kind)]

    @property
    def accepted(self) -> dict[str, Call]:
        """For each task, by id: the first submit that returned this id."""
        first_submits: dict[str, Call] = {}
        for call in self.calls_to("submit"):
            first_submits.setdefault(call.response["task"], call)
        return first_submits

    def counts(self) -> dict[str, int]:
        """The number of lines by operation and kind."""
        return dict(self.line_counts)


def gather(lines: Iterable[Line]) -> Observations:
    """Sort the lines of a history."""
    observations = Observations()
    open_requests: dict[int, Line] = {}
    for line in lines:
        observations.line_counts[f"{line['op']}.{line['kind']}"] += 1
        if line["kind"] == "invoke":
            open_requests[line["i"]] = line
        elif "i" in line:
            request = open_requests.pop(line["i"])
            observations.calls.append(
                Call(
                    op=line["op"],
                    began=request["t"],
                    ended=line["t"],
                    kind=line["kind"],
                    request=request,
                    response=line,
                )
            )
        else:
            _add(observations, line)
    for request in open_requests.values():
        observations.calls.append(
            Call(
                op=request["op"],
                began=request["t"],
                ended=float("inf"),
                kind="unknown",
                request=request,
                response={},
            )
        )
    return observations


def _add(observations: Observations, line: Line) -> None:
    match line["op"], line["kind"]:
        case "reader", "begin":
            observations.readers[line["reader"]] = []
            observations.reader_task[line["reader"]] = line["task"]
        case "reader", "end":
            observations.ended_readers.add(line["reader"])
        case "event", _:
            observations.readers.setdefault(line["reader"], []).append(line)
            observations.reader_task.setdefault(line["reader"], line["task"])
        case "relay", "gap":
            observations.relay_gaps.append(line)
        case "relay", _:
            observations.relays.setdefault(line["task"], []).append(line)
        case "final", _:
            observations.complete = True
            observations.final_records[line["task"]] = line["record"]
        case "stream", _:
            observations.streams[line["task"]] = line["events"]
        case "store", _:
            observations.complete = True
            observations.stores[line["pool"]] = line
        case "files", _:
            observations.files = line["files"]
        case "settled", _:
            observations.unfinished = line["left"]
        case "client", _:
            observations.failed_clients.append(line)


def parse_event_id(event_id: str) -> tuple[int, int]:
    """An event id as a pair of numbers. The pairs sort in the order of the events."""
    first, _, second = event_id.partition("-")
    return int(first), int(second)


def echo_digest(message: str, steps: int) -> str:
    """The SHA-256 of the ``echo.txt`` of an uninterrupted run, computed independently of the workload."""
    return hashlib.sha256(echo_text(message, steps)).hexdigest()
