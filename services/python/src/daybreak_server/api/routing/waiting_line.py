"""Requests that wait until a group is free: in the order of their arrival, bounded in number and by tenant."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterator
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
    """Groups that broke while they had this request, and when such a group may get it again, on the clock of the event
    loop, if there is no other group."""
    breaks: int = 0
    """How often a group broke while it had this request."""
    tried: bool = False
    """Whether it has had a group before. It then waits at the front of the line."""


@dataclass(slots=True, kw_only=True, eq=False)
class Waiter:
    """A ticket in the line. ``granted`` gets the group, or an exception."""

    ticket: Ticket
    granted: asyncio.Future[Candidate]


class WaitingLine:
    """The line of one pool."""

    def __init__(self, *, max_waiting: int, max_waiting_per_tenant: int) -> None:
        self._max_waiting = max_waiting
        self._max_waiting_per_tenant = max_waiting_per_tenant
        self._again: dict[Waiter, None] = {}
        self._first: dict[Waiter, None] = {}
        self._tenants: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._again) + len(self._first)

    def __iter__(self) -> Iterator[Waiter]:
        return iter([*self._again, *self._first])

    def join(self, ticket: Ticket) -> Waiter:
        """Join the line: at its end, or before all that have had no group yet if this one has.

        :raises LineFullError: but not for a request that has had a group.
        """
        if not ticket.tried:
            if len(self) >= self._max_waiting:
                raise LineFullError("waiting")
            if self._tenants[ticket.tenant] >= self._max_waiting_per_tenant:
                raise LineFullError("waiting_per_tenant")
        waiter = Waiter(ticket=ticket, granted=asyncio.get_running_loop().create_future())
        (self._again if ticket.tried else self._first)[waiter] = None
        self._tenants[ticket.tenant] += 1
        return waiter

    def leave(self, waiter: Waiter) -> None:
        """Leave the line, wherever in it."""
        part = self._again if waiter.ticket.tried else self._first
        if waiter in part:
            del part[waiter]
            tenant = waiter.ticket.tenant
            self._tenants[tenant] -= 1
            if not self._tenants[tenant]:
                del self._tenants[tenant]

    def grant(self, choose: Callable[[Ticket], Candidate | None], any_free: Callable[[], bool]) -> None:
        """Give groups to those that wait, first come first served.

        A request that must wait for one certain group does not hold up those behind it.
        """
        for waiter in self:
            if waiter.granted.done():
                continue
            if not any_free():
                return
            group = choose(waiter.ticket)
            if group is not None:
                self.leave(waiter)
                waiter.granted.set_result(group)

    def refuse_all(self, error: Exception) -> None:
        """End the waiting of all with this error."""
        for waiter in self:
            self.leave(waiter)
            if not waiter.granted.done():
                waiter.granted.set_exception(error)
