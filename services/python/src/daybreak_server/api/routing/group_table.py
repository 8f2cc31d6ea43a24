"""Decides which groups of a pool may get requests, from the store's view and from what this gateway has seen itself.

The store's view comes once a second and says which groups exist. Between two views, this gateway knows better than the
store how many requests it has sent, which group accepts no connections, and which group is full or leaves. The rules:

* A group is taken out of :attr:`GroupTable.ready` if its lease has ended, if it has a drain mark, or if it accepts no
  connection. It is also taken out if an answer says that the group leaves, or that another group has its address now.
  A slow or full group stays in.
* The store keeps the drain mark. A group that reports to this gateway that it leaves is taken out at once. After
  :data:`LEFT_FOR_VIEWS` views, only the drain mark decides whether the group stays out.
* A group that accepted no connection is tried again after a pause, because it may have been unreachable only for a
  moment.
* A group that refused a request because it is full is blocked for a moment: until one of this gateway's requests to it
  ends, or until a pause ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from daybreak_server.api.routing.candidates import Candidate
from daybreak_server.domain.pools import GroupRecord, PoolView

BUSY_PAUSE_S = 0.05
"""The pause after a full group refuses a request. Each further refusal in a row doubles it, up to the maximum."""
MAX_BUSY_PAUSE_S = 1.0
UNREACHABLE_PAUSE_S = 1.0
"""The pause after a failed attempt to connect. Each further failure in a row doubles it, up to the maximum."""
MAX_UNREACHABLE_PAUSE_S = 8.0
LEFT_FOR_VIEWS = 3
"""If a group says that it leaves, it stays out for this many views, because its drain mark appears only in a later
view. After these views, only the drain mark decides, so a group whose drain mark was removed gets requests again."""


@dataclass(slots=True)
class _Entry:
    """A group that the store knows and that may serve requests."""

    group: Candidate
    peak: int = 0
    """The highest number of this gateway's requests in flight to the group since the last view."""
    last_peak: int = 0
    """The highest number of this gateway's requests in flight to the group between the last two views."""
    refusals: int = 0
    """Refusals in a row because the group was full."""
    failures: int = 0
    """Failed attempts to connect, in a row."""
    drain: bool = False
    """Whether the store has a drain mark for the group."""
    left_for_views: int = 0
    """For how many more views the group stays out because it said that it leaves."""
    unreachable: bool = False


class GroupTable:
    """The groups of one pool. :attr:`ready` has those that may get requests, in the order of their ids. The
    sequence is replaced by a new one only when a group joins or leaves it."""

    def __init__(self) -> None:
        self.ready: Sequence[Candidate] = ()
        self._known: dict[str, _Entry] = {}

    def update(self, view: PoolView) -> set[str]:
        """Take in a new view. Returns the ids of groups that no longer serve, usually because their lease has ended."""
        records = {record.id: record for record in view.groups if _serves(record)}
        ended = self._known.keys() - records.keys()
        for group_id in ended:
            del self._known[group_id]
        for group_id, record in records.items():
            known = self._known.get(group_id)
            if known is None:
                known = self._known[group_id] = _Entry(Candidate(id=group_id, endpoint=""))
            self._refresh(known, record)
        self._list_ready()
        return set(ended)

    def sent(self, group: Candidate) -> None:
        """Count a request that is sent to the group."""
        group.own += 1
        known = self._known.get(group.id)
        if known is not None and group.own > known.peak:
            known.peak = group.own

    def answered(self, group: Candidate) -> None:
        """Record that the group is alive and takes requests."""
        known = self._known.get(group.id)
        if known is not None:
            known.refusals = known.failures = 0

    def ended(self, group: Candidate) -> None:
        """Stop counting a request whose answer has ended. The group has room again."""
        group.own -= 1
        group.blocked = False

    def refused(self, group: Candidate) -> float:
        """The group is full. Returns the seconds after which to call :meth:`unblock`."""
        group.blocked = True
        known = self._known.get(group.id)
        if known is None:
            return 0.0
        known.refusals += 1
        return float(min(BUSY_PAUSE_S * 2 ** min(known.refusals - 1, 10), MAX_BUSY_PAUSE_S))

    def unblock(self, group: Candidate) -> None:
        """Try a full group again."""
        group.blocked = False

    def leaves(self, group: Candidate) -> None:
        """Take the group out: an answer said that it drains, or that another group has its address now. The store's
        view shows this later."""
        known = self._known.get(group.id)
        if known is not None:
            known.left_for_views = LEFT_FOR_VIEWS
            self._list_ready()

    def unreachable(self, group: Candidate) -> float:
        """The group accepts no connections. Returns the seconds after which to call :meth:`reachable`."""
        known = self._known.get(group.id)
        if known is None:
            return 0.0
        if not known.unreachable:
            known.unreachable = True
            known.failures += 1
            self._list_ready()
        pause_s = UNREACHABLE_PAUSE_S * 2 ** min(known.failures - 1, 10)
        return float(min(pause_s, MAX_UNREACHABLE_PAUSE_S))

    def reachable(self, group: Candidate) -> None:
        """Try an unreachable group again."""
        known = self._known.get(group.id)
        if known is not None and known.unreachable:
            known.unreachable = False
            self._list_ready()

    def _refresh(self, known: _Entry, record: GroupRecord) -> None:
        group, load = known.group, record.load
        group.endpoint = record.endpoint or ""
        group.capacity = record.capacity
        group.free_memory_bytes = load.free_memory_bytes if load is not None else None
        # The group's report is up to two seconds old, so up to `max(peak, last_peak)` of the reported requests may be
        # this gateway's. Only the requests beyond that number certainly belong to other gateways.
        reported = load.in_flight + load.waiting if load is not None else 0
        group.others = max(0, reported - max(known.peak, known.last_peak))
        known.last_peak, known.peak = known.peak, group.own
        known.drain = record.drain
        known.left_for_views = max(0, known.left_for_views - 1)

    def _list_ready(self) -> None:
        known = sorted(self._known.values(), key=lambda known: known.group.id)
        ready = tuple(k.group for k in known if not (k.drain or k.left_for_views or k.unreachable))
        if len(ready) != len(self.ready) or any(a is not b for a, b in zip(ready, self.ready, strict=True)):
            self.ready = ready


def _serves(record: GroupRecord) -> bool:
    """Whether the group has formed and has an address. A draining group counts, because it still finishes requests."""
    return record.endpoint is not None and record.state.ready
