"""Hand-written histories of requests, which the tests of the checker use."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from verification.faults.wish import Wish

Line = dict[str, Any]
Script = Callable[["RequestHistory"], None]
WISH = Wish(parts=3, size=50)


class RequestHistory:
    """The lines about one request. Each new line advances the time by a tenth of a second."""

    def __init__(self, number: int, began: float = 0.0) -> None:
        self.number = number
        self.pid = number * 100
        self.now = began
        self.lines: list[Line] = []
        self.ran: list[Line] = []
        self.line("request", "begin", wish=asdict(WISH), deadline_s=30.0)

    def line(self, op: str, kind: str, **fields: Any) -> None:
        self.now += 0.1
        self.lines.append({"op": op, "kind": kind, "request": self.number, **fields, "t": self.now})

    def run(self, kind: str, *, pid: int = 0, send: int = 1) -> None:
        self.now += 0.1
        line = {"op": "ran", "kind": kind, "request": self.number, "send": send, "pid": pid or self.pid}
        self.ran.append({**line, "at": self.now, "t": 1e6})

    def whole_run(self, *, pid: int = 0, send: int = 1) -> None:
        self.run("begin", pid=pid, send=send)
        self.run("end", pid=pid, send=send)

    def sent(self, kind: str, *, send: int = 1, size: int = 0, **changes: Any) -> None:
        """End one send of the request now. The client has received the first ``size`` bytes of the answer."""
        answer = WISH.answer(self.number)[:size]
        fields = {
            "send": send,
            "gateway": f"gateway-{self.number}",
            "began": self.now - 0.05,
            "first": self.now if size else None,
            "status": 200 if size else 0,
            "pid": self.pid if size else 0,
            "size": size,
            "crc": zlib.crc32(answer),
            "error": "",
        }
        self.line("send", kind, **{**fields, **changes})

    def answered(self, *, send: int = 1, **changes: Any) -> None:
        self.sent("complete", send=send, size=len(WISH.answer(self.number)), **changes)

    def killed(self, what: str = "leader", *, pid: int = 0) -> None:
        name = f"gateway-{self.number}" if what == "gateway" else f"online-{self.number}.0"
        self.line("fault", f"kill-{what}", name=name, pid=pid or self.pid)


def history_of(scripts: list[tuple[Script, float]], *, settled: bool = True) -> list[Line]:
    """The history of these requests. ``scripts`` has, for each request, its script and its start time in seconds."""
    histories = []
    for number, (script, began) in enumerate(scripts, 1):
        history = RequestHistory(number, began)
        script(history)
        histories.append(history)
    lines = sorted((line for history in histories for line in history.lines), key=lambda line: line["t"])
    ran = [line for history in histories for line in history.ran]
    end = [{"op": "load", "kind": "end", "requests": len(histories), "t": 1e6}]
    return [{"op": "run", "kind": "begin", "t": 0.0}, *lines, *ran, *(end if settled else [])]
