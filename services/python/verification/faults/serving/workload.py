"""The workload of the scenarios. It answers each request as the request's :class:`Wish` asks, and logs each run.

Each leader has a separate file. The leader appends one JSON line when a run begins and one when the run ends. A line
is one ``write`` to the operating system, so it survives the death of the process. Times are those of
``time.monotonic()``, a clock that all processes of a machine share.

The pool's option ``runs`` names the folder of these files.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from daybreak_server.workloads.base import Group, NoInput, WorkloadSpec
from daybreak_server.workloads.serving import Request, Response
from verification.faults.wish import Wish, parse

_POLL_S = 0.02
WORKLOAD = "verification.faults.serving.workload:SPEC"
PID_HEADER = "answered-by"
"""Response header with the leader's PID."""


class RecordedServe:
    """Implements :class:`daybreak_server.workloads.serving.ServingWorkload`."""

    def __init__(self) -> None:
        self._group = Group()
        self._file = -1

    def load(self, group: Group) -> None:
        """If this process is the leader, open its file."""
        self._group = group
        if group.leader:
            folder = Path(group.options["runs"])
            folder.mkdir(parents=True, exist_ok=True)
            self._file = os.open(
                folder / f"{os.getpid()}.jsonl", os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644
            )

    def warm_up(self) -> None:
        """Do nothing."""

    def serve(self, request: Request) -> Response:
        """Answer as the body asks."""
        number, send, wish = parse(request.body)
        self._write("begin", number, send)
        _pause(wish.latency_s, request)
        headers = {PID_HEADER: str(os.getpid())}
        if wish.parts:
            return Response(headers=headers, body=self._stream(number, send, wish, request))
        self._write("end", number, send)
        return Response(headers=headers, body=wish.part(number, 0))

    def _stream(self, number: int, send: int, wish: Wish, request: Request) -> Iterator[bytes]:
        how = "stop"
        try:
            for index in range(wish.parts):
                if index:
                    _pause(wish.part_s, request)
                yield wish.part(number, index)
            how = "end"
        finally:
            self._write(how, number, send)

    def _write(self, kind: str, number: int, send: int) -> None:
        if self._group.leader:
            line = {"kind": kind, "request": number, "send": send, "at": time.monotonic(), "pid": os.getpid()}
            os.write(self._file, json.dumps(line, separators=(",", ":")).encode() + b"\n")


def _pause(seconds: float, request: Request) -> None:
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0 and not request.cancelled():
        time.sleep(min(_POLL_S, left))


SPEC: WorkloadSpec[NoInput] = WorkloadSpec(
    name="recorded-serve",
    kind="online",
    implementation="verification.faults.serving.workload:RecordedServe",
    capacity=16,
)
