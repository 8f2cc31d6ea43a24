"""What a request asks for, and the exact bytes of its answer.

Workloads, engines, clients and the checker share this module, so the checker knows every byte of a complete answer.
Each part contains the number of its request, so the answer to another request never looks right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a request wants to be answered."""

    parts: int = 0
    """Parts of a streamed answer; 0: the answer has one part and a Content-Length."""
    size: int = 100
    """Bytes of a part, at least 40."""
    latency_s: float = 0.0
    """Seconds before the first part."""
    part_s: float = 0.0
    """Seconds between two parts."""

    def body(self, number: int, send: int) -> bytes:
        """The body of the request with this number. ``send`` is 1 in the first try, 2 in the second, …"""
        return json.dumps({"number": number, "send": send, **asdict(self)}, separators=(",", ":")).encode()

    def part(self, number: int, index: int) -> bytes:
        """Part ``index`` of the answer, counted from 0."""
        return f"{number} {index + 1}/{max(1, self.parts)} ".ljust(self.size - 1, "x").encode() + b"\n"

    def answer(self, number: int) -> bytes:
        """The whole answer."""
        return b"".join(self.part(number, index) for index in range(max(1, self.parts)))


def parse(body: bytes) -> tuple[int, int, Wish]:
    """The inverse of :meth:`Wish.body`. :returns: ``number``, ``send`` and the wish."""
    fields = json.loads(body)
    return fields.pop("number"), fields.pop("send"), Wish(**fields)


def each_part(wish: Wish, number: int) -> Iterator[bytes]:
    """The parts of the answer, one after the other."""
    for index in range(max(1, wish.parts)):
        yield wish.part(number, index)
