"""The lines of a history, sorted by request, for the checker. All times are in seconds since the history began."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from verification.faults.history import Line
from verification.faults.wish import Wish


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """One send of a request to a gateway, and its answer."""

    number: int
    """1 for the first time that the request was sent."""
    kind: str
    """``complete``, ``cut``, ``broken``, ``late`` or ``closing``; see :mod:`verification.faults.serving.load`."""
    gateway: str
    began: float
    ended: float
    first: float | None
    """When the first byte of the answer arrived; ``None`` if none arrived."""
    status: int
    pid: int
    """The process that the answer names; 0 if it names none."""
    size: int
    crc: int
    error: str


@dataclass(slots=True, kw_only=True)
class Run:
    """One run of a request by a group. ``send`` is the number of the client's send that caused the run."""

    send: int
    pid: int
    began: float
    ended: float | None = None
    how: str = ""
    """How the run ended: ``end``, ``stop`` (no client waited for the rest), or empty if the process died."""


@dataclass(slots=True, kw_only=True)
class Request:
    """The sends and runs of one request."""

    number: int
    began: float
    wish: Wish
    deadline_s: float
    sends: list[Send] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    """The runs, sorted by when they began."""

    @property
    def last(self) -> Send | None:
        """The send that decides the outcome."""
        return self.sends[-1] if self.sends else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault that was injected: ``kill-leader``, ``preempt-gateway``, …"""

    kind: str
    name: str
    pid: int
    at: float


@dataclass(slots=True)
class ServingObservations:
    """The contents of a history."""

    requests: dict[int, Request] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    replicas: dict[int, str] = field(default_factory=dict)
    """The component of each process, by the process's id. All ranks of a group have the group's name (``online-1``);
    a worker and its engines have the worker's (``worker-1``). A gateway has its own name (``gateway-0``)."""
    ended_pids: dict[int, float] = field(default_factory=dict)
    """Processes of the cluster that ended: process → time."""
    settled: bool = False
    """Whether the clients have ended, and the logs of the groups are in the history."""
    strays: list[Line] = field(default_factory=list)
    """Lines of the history that name an unknown request, or end a run that never began."""
    orphans: dict[int, str] = field(default_factory=dict)
    """Engines that outlived their worker: process → worker."""
    must_stay: bool = False
    """Whether every group must work until the end of the run, because none was killed or stopped."""
    line_counts: Counter[str] = field(default_factory=Counter)

    def gateway_kills(self, name: str) -> Sequence[float]:
        """When the gateway with this name was killed."""
        return [fault.at for fault in self.faults if fault.kind == "kill-gateway" and fault.name == name]

    def answers(self, gateway: str) -> Iterator[float]:
        """When the answers of a gateway began."""
        for request in self.requests.values():
            for send in request.sends:
                if send.gateway == gateway and send.first is not None:
                    yield send.first

    def group_kills(self, leader: int) -> Sequence[float]:
        """When any rank of this leader's group was killed, which ends the whole group. If ``leader`` is the process of
        an engine: when the engine or its worker was killed. After a restart, the leader or the engine is a process
        with another PID. Kills of that process are not included.
        """
        group = self.replicas.get(leader)
        return [
            fault.at
            for fault in self.faults
            if (fault.kind in ("kill-leader", "kill-engine") and fault.pid == leader)
            or (fault.kind in _KILLS_ALL and group is not None and self.replicas.get(fault.pid) == group)
        ]


_KILLS_ALL = ("kill-follower", "kill-worker")
"""Faults that end all processes of the component whose process they hit."""


def gather(lines: Iterable[Line]) -> ServingObservations:
    """Sort the lines of a history. The logs of groups come after the lines of clients."""
    seen = ServingObservations()
    for line in lines:
        seen.line_counts[f"{line['op']}.{line['kind']}"] += 1
        match line["op"]:
            case "request":
                seen.requests[line["request"]] = Request(
                    number=line["request"],
                    began=line["t"],
                    wish=Wish(**line["wish"]),
                    deadline_s=line["deadline_s"],
                )
            case "send" | "ran":
                request = seen.requests.get(line["request"])
                if request is None:
                    seen.strays.append(line)
                elif line["op"] == "send":
                    request.sends.append(_send(line))
                else:
                    _ran(request, line, seen.strays)
            case "fault":
                seen.faults.append(Fault(kind=line["kind"], name=line["name"], pid=line["pid"], at=line["t"]))
            case "component" if line["kind"] == "started":
                seen.replicas[line["pid"]] = line["name"]
            case "component" if line["kind"] == "ended":
                seen.ended_pids[line["pid"]] = line["t"]
            case "orphan":
                seen.orphans[line["pid"]] = line["name"]
            case "expect":
                seen.must_stay = line["kind"] == "stay"
            case "load":
                seen.settled = True
    for request in seen.requests.values():
        request.runs.sort(key=lambda run: run.began)
    return seen


def _send(line: Line) -> Send:
    same: dict[str, Any] = {
        name: line[name] for name in ("gateway", "began", "first", "status", "pid", "size", "crc", "error")
    }
    return Send(number=line["send"], kind=line["kind"], ended=line["t"], **same)


def _ran(request: Request, line: Line, strays: list[Line]) -> None:
    """Add the beginning or the end of a run. The lines of one process come in the order of time."""
    if line["kind"] == "begin":
        request.runs.append(Run(send=line["send"], pid=line["pid"], began=line["at"]))
        return
    for run in reversed(request.runs):
        if run.pid == line["pid"] and run.send == line["send"] and run.ended is None:
            run.ended, run.how = line["at"], line["kind"]
            return
    strays.append(line)
