"""Requests that wait until a group is free. Requests that have had a group before wait in front of all others. Apart
from that, the order is that of arrival. The number of waiting requests is limited, in total and for each tenant.

The time to find a request for a free group does not grow with the length of the line. Each request first waits in a
common lane. If it must wait for one certain group, it moves to the lane of that group when its turn comes. So it is not
looked at again until that group is free. If the groups or the policy change, all requests move back to the common lane.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from daybreak_server.api.routing.candidates import Candidate, RoutingRequest


class LineFullError(Exception):
    """No more requests may wait. ``limit``: which limit is reached."""

    def __init__(self, limit: str) -> None:
        super().__init__(limit)
        self.limit = limit


@dataclass(slots=True, kw_only=True, eq=False)
class Ticket:
    """A request that needs a group."""

    tenant: str
    request: RoutingRequest
    broke: dict[str, float] = field(default_factory=dict)
    """The groups that broke while they had this request, each with a time of the event loop's clock. If there is no
    other group, such a group may get the request again from that time on."""
    breaks: int = 0
    """How often a group broke while it had this request."""
    tried: bool = False
    """Whether the request has had a group before. If it has, it waits at the front of the line."""
    wakes: bool = True
    """Whether the request may wait while the pool has no group, and so make a group start. A ``GET /debug`` may not."""


@dataclass(slots=True, kw_only=True, eq=False)
class Waiter:
    """A ticket in the line. ``granted`` gets the group, or an exception."""

    ticket: Ticket
    granted: asyncio.Future[Candidate]
    place: tuple[bool, int]
    """Its place in the line. The smallest is first."""
    lane: _Lane
    since: float
    """When it joined, by the clock of the event loop."""


class _Lane:
    """Waiting requests in their order: first those that have had a group, then the others."""

    def __init__(self, waiters: Iterable[Waiter] = ()) -> None:
        self._again: dict[Waiter, None] = {}
        self._first: dict[Waiter, None] = {}
        for waiter in waiters:
            self.add(waiter)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([*self._again, *self._first])

    def add(self, waiter: Waiter) -> None:
        (self._again if waiter.ticket.tried else self._first)[waiter] = None
        waiter.lane = self

    def remove(self, waiter: Waiter) -> None:
        del (self._again if waiter.ticket.tried else self._first)[waiter]

    def front(self) -> Waiter | None:
        return next(iter(self._again or self._first), None)


class WaitingLine:
    """The line of one pool."""

    def __init__(self, *, max_waiting: int, max_waiting_per_tenant: int) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_per_tenant = max_waiting_per_tenant
        self._any = _Lane()
        self._of_group: dict[str, tuple[Candidate, _Lane]] = {}
        self._waiting: dict[Waiter, None] = {}
        self._joined = 0
        self._tenants: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._waiting)

    def oldest_wait_s(self, now: float) -> float:
        """How long the oldest request has waited at the loop's time ``now``; 0 if none waits."""
        oldest = next(iter(self._waiting), None)
        return now - oldest.since if oldest is not None else 0.0

    def join(self, ticket: Ticket) -> Waiter:
        """Join the line: at its end, or, if this request has had a group, before all requests that have had none.

        :raises LineFullError: when the line is full. A request that has had a group may join nevertheless.
        """
        if not ticket.tried:
            if len(self) >= self._max_waiting:
                raise LineFullError("waiting")
            if self._tenants[ticket.tenant] >= self._max_waiting_per_tenant:
                raise LineFullError("waiting_per_tenant")
        self._joined += 1
        loop = asyncio.get_running_loop()
        waiter = Waiter(
            ticket=ticket,
            granted=loop.create_future(),
            place=(not ticket.tried, self._joined),
            lane=self._any,
            since=loop.time(),
        )
        self._any.add(waiter)
        self._waiting[waiter] = None
        self._tenants[ticket.tenant] += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Leave the line, from any place. Does nothing the second time."""
        if waiter in self._waiting:
            del self._waiting[waiter]
            waiter.lane.remove(waiter)
            tenant = waiter.ticket.tenant
            self._tenants[tenant] -= 1
            if not self._tenants[tenant]:
                del self._tenants[tenant]

    def regroup(self) -> None:
        """Forget which requests wait for one certain group, because the groups or the policy have changed."""
        if self._of_group:
            self._of_group.clear()
            self._any = _Lane(sorted(self._waiting, key=lambda waiter: waiter.place))

    def grant(
        self,
        *,
        choose: Callable[[Ticket], Candidate | None],
        any_free: Callable[[], bool],
        only_group: Callable[[Ticket], Candidate | None],
    ) -> None:
        """Give groups to the waiting requests, in the order of the line.

        A request that must wait for one certain group does not hold up the requests behind it.

        :param choose: Returns a free group for a request, and counts the request as sent to that group; ``None`` if
            there is no such group.
        :param any_free: Whether any group is free.
        :param only_group: Returns the only group to which a request may go; ``None`` if the request may go to others.
        """
        passed: list[Waiter] = []
        try:
            while any_free() and (waiter := self._next()) is not None:
                if waiter.granted.done():  # its client has left, or it has waited for too long
                    self.leave(waiter)
                    continue
                group = choose(waiter.ticket)
                if group is not None:
                    self.leave(waiter)
                    waiter.granted.set_result(group)
                    continue
                waiter.lane.remove(waiter)
                passed.append(waiter)
                only = only_group(waiter.ticket)
                if only is not None and not only.free:
                    passed.pop()
                    self._of_group.setdefault(only.id, (only, _Lane()))[1].add(waiter)
        finally:
            if passed:
                self._any = _Lane(sorted([*passed, *self._any], key=lambda waiter: waiter.place))

    def _next(self) -> Waiter | None:
        """The first of the requests in the common lane and in the lanes of the free groups."""
        fronts = [lane.front() for group, lane in self._of_group.values() if group.free]
        return min(
            (waiter for waiter in (self._any.front(), *fronts) if waiter is not None),
            key=lambda waiter: waiter.place,
            default=None,
        )

    def refuse_all(self, error: Exception) -> None:
        """Refuse all waiting requests with this error."""
        self._refuse(list(self._waiting), error)

    def refuse_non_waking(self, error: Exception) -> None:
        """Refuse the waiting requests that must not wake the pool (:attr:`Ticket.wakes`) with this error."""
        self._refuse([waiter for waiter in self._waiting if not waiter.ticket.wakes], error)

    def _refuse(self, waiters: Iterable[Waiter], error: Exception) -> None:
        for waiter in waiters:
            self.leave(waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
