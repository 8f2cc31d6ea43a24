"""The control group: the connections over which the ranks of a group coordinate. They carry no data of the workload.

It is a star of TCP connections (:class:`~daybreak_server.engines.ranks.channel.Channel`) with the leader in the middle:
the leader has :class:`Followers`, each follower has a :class:`LeaderConnection`, and a group of one
rank has :class:`SingleRank`. The messages:

| from | kind | meaning |
|---|---|---|
| leader | ``run`` | an order: run this task; the payload is the snapshot to resume from |
| leader | ``serve`` | an order: answer this request; the payload is its body |
| follower | ``report`` | the rank's result at a point of agreement |
| leader | ``decision`` | what every rank does next |
| follower | ``leaving`` | the follower was asked to leave, so the leader should release the task and end the group |
| follower | ``broken`` | the error that ends this rank |
| leader | ``leave`` | the group ends |
| leader | ``ping`` | a no-op from an idle leader |

At each end of a connection, a thread reads. So a lost connection or a failed rank is noticed at once, even while the
work thread waits in a collective. :meth:`ControlGroup.failure` reports the loss or failure to the leader's lease
renewer, which breaks the group. After a rank has failed, the others have ``grace_s`` to reach the same point. If all
ranks fail at this point in the same way, the group stays warm.

The control group needs no torch, and never times out while the group is idle. docs/04-group.md explains why it is not a
gloo group.
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
from daybreak_server.domain.log_context import inherited
from daybreak_server.engines.common.error_causes import code_of_lost
from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.ranks.channel import Channel, ChannelClosedError, Message
from daybreak_server.engines.ranks.consensus import GroupDecision, RankReport, Status

RANK_LOST = "rank_lost"
"""The code of a group's failure if a rank died without a report."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankInfo:
    """Which rank a process is, and where it runs."""

    rank: int
    host: str
    pid: int


class ControlGroup(Protocol):
    """The leader's side of the control group."""

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Send an order to all followers. :raises GroupBrokenError: if one is gone."""

    def collect(self, own_report: RankReport) -> Sequence[RankReport]:
        """Return the reports of all ranks at the point number ``own_report.point``.

        :raises GroupBrokenError: if a report cannot arrive.
        """

    def announce(self, decision: GroupDecision) -> None:
        """Send the decision to all followers. :raises GroupBrokenError: if one is gone."""

    def failure(self, *, now: bool = False) -> RankReport | None:
        """Return why the group can reach no further agreement, or ``None``. Other threads may call this.

        With ``now``, the report of a failed rank is returned at once, and not only after ``grace_s``.
        """

    def wants_to_leave(self) -> bool:
        """Return whether a follower has asked to leave."""

    def close(self) -> None:
        """End the group: send ``leave`` to all followers."""


class SingleRank:
    """The control group of a group of one rank: there are no followers."""

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Do nothing."""

    def collect(self, own_report: RankReport) -> Sequence[RankReport]:
        """Return the leader's own report."""
        return [own_report]

    def announce(self, decision: GroupDecision) -> None:
        """Do nothing."""

    def failure(self, *, now: bool = False) -> RankReport | None:
        """Return ``None``: no other rank can fail."""
        return None

    def wants_to_leave(self) -> bool:
        """Return ``False``."""
        return False

    def close(self) -> None:
        """Do nothing."""


class Followers:
    """The leader's connections to all followers. Implements :class:`ControlGroup`."""

    def __init__(self, channels: Mapping[int, Channel], *, grace_s: float) -> None:
        self._channels = dict(channels)
        self._grace_s = grace_s
        self._inbox: dict[int, queue.Queue[RankReport]] = {rank: queue.Queue() for rank in channels}
        self._lock = threading.Lock()
        self._lost: RankReport | None = None
        self._failed: tuple[float, RankReport] | None = None
        self._leaving = False
        self._closed = False
        for rank, channel in self._channels.items():
            threading.Thread(
                target=inherited(self._read), args=(rank, channel), name=f"rank-{rank}", daemon=True
            ).start()

    def order(self, kind: str, payload: bytes = b"", **fields: Any) -> None:
        """Send an order to all followers. :raises GroupBrokenError: if one is gone."""
        for rank, channel in self._channels.items():
            try:
                channel.send(kind, payload, **fields)
            except ChannelClosedError as exc:
                self._lose(f"rank {rank} is gone: {exc}")
                raise GroupBrokenError(f"rank {rank} is gone: {exc}") from exc

    def collect(self, own_report: RankReport) -> Sequence[RankReport]:
        """Return one report from each rank, the leader's first.

        :raises GroupBrokenError: if a report cannot arrive.
        """
        reports = [own_report]
        started = time.monotonic()
        for rank, inbox in self._inbox.items():
            while True:
                try:
                    report = inbox.get(timeout=0.1)
                except queue.Empty:
                    waited_s = time.monotonic() - started
                    if self._lost is not None:
                        raise GroupBrokenError(self._lost.message) from None
                    if any(other.failed for other in reports) and waited_s > self._grace_s:
                        raise GroupBrokenError(
                            f"rank {rank} did not reach the point at which another rank failed"
                        ) from None
                    continue
                if report.point != own_report.point:
                    raise GroupBrokenError(
                        f"rank {rank} is at point {report.point}, not at {own_report.point}"
                    )
                reports.append(report)
                break
        with self._lock:
            self._failed = None
        return reports

    def announce(self, decision: GroupDecision) -> None:
        """Send the decision to all followers. :raises GroupBrokenError: if one is gone."""
        self.order("decision", decision=decision.value)

    def failure(self, *, now: bool = False) -> RankReport | None:
        """Return a report on a rank that is lost, or that failed at a point that the others did not reach in time."""
        with self._lock:
            if self._failed is not None:
                since, report = self._failed
                if now or self._lost is not None or time.monotonic() - since > self._grace_s:
                    return report
            return self._lost

    def wants_to_leave(self) -> bool:
        """Return whether a follower has asked to leave."""
        return self._leaving

    def close(self) -> None:
        """Send ``leave`` to all followers, and close the connections."""
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
                report = RankReport(**{**message.fields, "status": Status(message.fields["status"])})
                if report.failed:
                    with self._lock:
                        self._failed = self._failed or (time.monotonic(), report)
                self._inbox[rank].put(report)
            elif message.kind == "leaving":
                self._leaving = True
            elif message.kind == "broken":
                code = code_of_lost(message.fields["reason"])
                self._lose(f"rank {rank} cannot continue: {message.fields['message']}", code=code)

    def _lose(self, message: str, *, code: str = RANK_LOST) -> None:
        with self._lock:
            if not self._closed and self._lost is None:
                self._lost = RankReport(point=0, status=Status.UNRECOVERABLE, code=code, message=message)


class LeaderConnection:
    """A follower's connection to its leader. The reading thread calls ``on_lost`` once, if the connection is lost."""

    def __init__(self, channel: Channel, *, on_lost: Callable[[str], None]) -> None:
        self._channel = channel
        self._on_lost = on_lost
        self._orders: queue.Queue[Message | None] = queue.Queue()
        self._closed = False
        threading.Thread(target=inherited(self._read), name="leader", daemon=True).start()

    def next_order(self) -> Message:
        """Wait for the next order. :raises GroupBrokenError: if the leader is gone."""
        message = self._orders.get()
        if message is None:
            self._orders.put(None)
            raise GroupBrokenError("the leader is gone")
        return message

    def agree(self, own_report: RankReport) -> GroupDecision:
        """Send this rank's report and return the decision.

        :raises GroupBrokenError: if the leader is gone, or sends something other than a decision.
        """
        try:
            self._channel.send("report", **asdict(own_report))
        except ChannelClosedError as exc:
            raise GroupBrokenError("the leader is gone") from exc
        message = self.next_order()
        if message.kind != "decision":
            raise GroupBrokenError(f"the leader sent {message.kind!r} where a decision was due")
        return GroupDecision(message.fields["decision"])

    def ask_to_leave(self) -> None:
        """Ask the leader to release its task and end the group."""
        with contextlib.suppress(ChannelClosedError):
            self._channel.send("leaving")

    def report_broken(self, cause: Cause) -> None:
        """Report the error that ends this rank."""
        with contextlib.suppress(ChannelClosedError):
            self._channel.send("broken", message=cause.message, reason=cause.reason)

    def close(self) -> None:
        """Close the connection, without a call of ``on_lost``."""
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
