"""The control group: how the ranks of a group talk about the work, apart from the work's own data.

A star of TCP connections with the leader in the middle. Each rank reports to the leader at every point
of agreement and gets one verdict back. It needs no torch; it never times out while the group is idle; a
rank that dies is noticed at once, also while another is stuck in a collective with it; and an error
reaches the leader with its message. A gloo group could do none of the last three (see docs/04-group.md).
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from daybreak_server.domain.causes import Cause
from daybreak_server.engines.gang.channel import Channel, ChannelClosedError, Message
from daybreak_server.engines.gang.consensus import Report, Status, Verdict
from daybreak_server.engines.rank.causes import code_of_lost
from daybreak_server.engines.rank.errors import GroupBrokenError


@dataclass(frozen=True, slots=True, kw_only=True)
class RankInfo:
    """Who a rank is."""

    rank: int
    host: str
    pid: int


class ControlGroup(Protocol):
    """The leader's side."""

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Tell all followers what to do next."""

    def collect(self, mine: Report) -> Sequence[Report]:
        """Every rank's report of this point. :raises GroupBrokenError: when one cannot come."""

    def tell(self, verdict: Verdict) -> None:
        """Tell all followers what was decided."""

    def trouble(self, *, now: bool = False) -> Report | None:
        """Why the group can reach no further agreement, or ``None``; asked by a watching thread.

        With ``now``, a rank that failed counts at once, not only when its grace is over.
        """

    def wants_to_leave(self) -> bool:
        """Whether a follower was told to go."""

    def close(self) -> None:
        """Let the followers go."""


class SingleRank:
    """The control group of a group of one."""

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Nobody is there."""

    def collect(self, mine: Report) -> Sequence[Report]:
        """Only ours."""
        return [mine]

    def tell(self, verdict: Verdict) -> None:
        """Nobody is there."""

    def trouble(self, *, now: bool = False) -> Report | None:
        """There is none."""
        return None

    def wants_to_leave(self) -> bool:
        """Nobody is there."""
        return False

    def close(self) -> None:
        """Nobody is there."""


class Followers:
    """The leader's connections to all followers."""

    def __init__(self, channels: Mapping[int, Channel], *, grace_s: float) -> None:
        self._channels = dict(channels)
        self._grace_s = grace_s
        self._inbox: dict[int, queue.Queue[Report]] = {rank: queue.Queue() for rank in channels}
        self._lock = threading.Lock()
        self._lost: Report | None = None
        self._failed: tuple[float, Report] | None = None
        self._leaving = False
        self._closed = False
        for rank, channel in self._channels.items():
            threading.Thread(
                target=self._read, args=(rank, channel), name=f"rank-{rank}", daemon=True
            ).start()

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Tell all followers. :raises GroupBrokenError: when one is gone."""
        for rank, channel in self._channels.items():
            try:
                channel.send(kind, payload, **fields)
            except ChannelClosedError as exc:
                raise GroupBrokenError(f"rank {rank} is gone: {exc}") from exc

    def collect(self, mine: Report) -> Sequence[Report]:
        """One report of each rank, ours first."""
        reports = [mine]
        started = time.monotonic()
        for rank, inbox in self._inbox.items():
            while True:
                try:
                    report = inbox.get(timeout=0.1)
                except queue.Empty:
                    waited = time.monotonic() - started
                    if self._lost is not None:
                        raise GroupBrokenError(self._lost.message) from None
                    if any(one.failed for one in reports) and waited > self._grace_s:
                        raise GroupBrokenError(f"rank {rank} is stuck where another failed") from None
                    continue
                if report.point != mine.point:
                    raise GroupBrokenError(f"rank {rank} is at point {report.point}, not at {mine.point}")
                reports.append(report)
                break
        with self._lock:
            self._failed = None
        return reports

    def tell(self, verdict: Verdict) -> None:
        """Tell all followers what was decided."""
        self.order("verdict", verdict=verdict.value)

    def trouble(self, *, now: bool = False) -> Report | None:
        """A rank that failed and that the leader does not come to hear in time, or one that is lost."""
        with self._lock:
            if self._failed is not None:
                since, report = self._failed
                if now or self._lost is not None or time.monotonic() - since > self._grace_s:
                    return report
            return self._lost

    def wants_to_leave(self) -> bool:
        """Whether a follower was told to go."""
        return self._leaving

    def close(self) -> None:
        """Say good-bye; the followers leave too."""
        self._closed = True
        for channel in self._channels.values():
            with contextlib.suppress(ChannelClosedError):
                channel.send("leave")
            channel.close()

    def _read(self, rank: int, channel: Channel) -> None:
        while True:
            try:
                message = channel.receive()
            except ChannelClosedError as exc:
                self._lose(f"rank {rank} is gone: {exc}")
                return
            if message.kind == "report":
                report = Report(**{**message.fields, "status": Status(message.fields["status"])})
                if report.failed:
                    with self._lock:
                        self._failed = self._failed or (time.monotonic(), report)
                self._inbox[rank].put(report)
            elif message.kind == "leaving":
                self._leaving = True
            elif message.kind == "broken":
                code = code_of_lost(message.fields["reason"])
                self._lose(f"rank {rank} cannot go on: {message.fields['why']}", code=code)

    def _lose(self, why: str, *, code: str = "rank_lost") -> None:
        with self._lock:
            if not self._closed and self._lost is None:
                self._lost = Report(point=0, status=Status.UNRECOVERABLE, code=code, message=why)


class Leader:
    """A follower's connection to its leader. ``on_lost`` is called once, by the reading thread."""

    def __init__(self, channel: Channel, *, on_lost: Callable[[str], None]) -> None:
        self._channel = channel
        self._on_lost = on_lost
        self._orders: queue.Queue[Message | None] = queue.Queue()
        self._closed = False
        threading.Thread(target=self._read, name="leader", daemon=True).start()

    def next_order(self) -> Message:
        """Wait for the next order. :raises GroupBrokenError: when the leader is gone."""
        message = self._orders.get()
        if message is None:
            self._orders.put(None)
            raise GroupBrokenError("the leader is gone")
        return message

    def agree(self, mine: Report) -> Verdict:
        """Report, and hear what was decided."""
        try:
            self._channel.send("report", **asdict(mine))
        except ChannelClosedError as exc:
            raise GroupBrokenError("the leader is gone") from exc
        message = self.next_order()
        if message.kind != "verdict":
            raise GroupBrokenError(f"the leader sent {message.kind!r} where a verdict was due")
        return Verdict(message.fields["verdict"])

    def ask_to_leave(self) -> None:
        """Ask the leader to hand its task back and to let the group go."""
        with contextlib.suppress(ChannelClosedError):
            self._channel.send("leaving")

    def tell_broken(self, why: Cause) -> None:
        """Say why this rank leaves without having been told to."""
        with contextlib.suppress(ChannelClosedError):
            self._channel.send("broken", why=why.message, reason=why.reason)

    def close(self) -> None:
        """Leave."""
        self._closed = True
        self._channel.close()

    def _read(self) -> None:
        while True:
            try:
                message = self._channel.receive()
            except ChannelClosedError as exc:
                self._orders.put(None)
                if not self._closed:
                    self._on_lost(str(exc))
                return
            if message.kind == "leave":
                self._closed = True
            if message.kind != "ping":
                self._orders.put(message)
