"""Decides for one pool which group gets which request, and when.

A request gets a :class:`Slot`: the right to send one request to one group. If no group is free, the request joins the
line. The line moves on events, never by polling: a slot is given back, the store's view changes, or a pause after a
refusal or a failure ends. The event that makes a group free also gives it to a waiting request, so a request that
arrives later cannot take the group first.

All of this runs on one event loop. The router awaits nothing between the choice of a group and the count of the
request, so the counts are exact without locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from daybreak_server.api.routing.candidates import Candidate
from daybreak_server.api.routing.group_table import GroupTable
from daybreak_server.api.routing.policies import POLICIES
from daybreak_server.api.routing.waiting_line import Ticket, WaitingLine
from daybreak_server.domain.causes import Cause
from daybreak_server.domain.pools import PoolView
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.observability.router_metrics import RouterMetrics

BROKEN_PAUSE_S = 0.5
"""If a group breaks while it has a request, the request waits this long before the same group may get it again. The
pause doubles each time that a group breaks while it has this request."""


def _nothing() -> None:
    return None


class WaitedTooLongError(Exception):
    """No group was free in time."""


class NoGroupError(Exception):
    """The pool has no group, and either none can start, or the request must not start one."""


class ClosingError(Exception):
    """This gateway is shutting down."""


@dataclass(slots=True, eq=False)
class Slot:
    """The right to send one request to ``group``. Release it when the answer has ended."""

    group: Candidate
    _router: PoolRouter
    lost: bool = False
    """Whether the group's lease ended while the slot was held."""
    on_lost: Callable[[], None] = _nothing

    def release(self) -> None:
        """Give the slot back. Does nothing the second time."""
        self._router.end(self)


class PoolRouter:
    """Routes the requests of one pool. ``on_groups`` is called when groups may have left."""

    def __init__(
        self,
        *,
        policy: RoutingPolicy,
        max_waiting: int,
        max_waiting_per_tenant: int,
        max_wait_s: float,
        on_groups: Callable[[], None] = _nothing,
    ) -> None:
        self.policy = policy
        """The policy in use: the policy that the store has, or the policy of the settings if the store has none."""
        self._configured_policy = policy
        self.view: PoolView | None = None
        """The last view of the pool."""
        self._table = GroupTable()
        self._line = WaitingLine(max_waiting=max_waiting, max_waiting_per_tenant=max_waiting_per_tenant)
        self._max_wait_s = max_wait_s
        self.on_demand: Callable[[], None] = _nothing
        """Called whenever :attr:`demand` may have changed."""
        self._on_groups = on_groups
        self._slots: set[Slot] = set()
        self._choices = 0
        self._closing: Exception | None = None
        """The error with which the router refuses all requests; ``None`` until it closes."""
        self._arranged_for: tuple[RoutingPolicy, Sequence[Candidate]] = (policy, ())
        """The policy and the groups at the last ``regroup`` of the line. If either has changed, the line regroups."""

    @property
    def in_flight(self) -> int:
        """The number of requests that have a group and whose answers have not ended."""
        return len(self._slots)

    @property
    def waiting(self) -> int:
        """The number of requests that wait in line."""
        return len(self._line)

    @property
    def oldest_wait_s(self) -> float:
        """How long the oldest request in the line has waited; 0 if none waits."""
        return self._line.oldest_wait_s(asyncio.get_running_loop().time()) if len(self._line) else 0.0

    @property
    def demand(self) -> int:
        """The number of requests for which the pool needs groups."""
        return len(self._slots) + len(self._line)

    @property
    def groups(self) -> Sequence[Candidate]:
        """The groups that may get requests, now or when they have room."""
        return self._table.ready

    @property
    def start_failure(self) -> Cause | None:
        """Why no group of the pool can start; ``None`` if groups can start."""
        return self.view.start_failure if self.view is not None else None

    def show(self, metrics: RouterMetrics) -> None:
        """Update the gauges. (To update them for each request would take longer than to count the request.)"""
        metrics.set_state(
            waiting=self.waiting,
            oldest_wait_s=self.oldest_wait_s,
            in_flight=self.in_flight,
            groups=len(self.groups),
        )

    def update(self, view: PoolView) -> None:
        """Take in a new view of the pool."""
        self.view = view
        self.policy = view.routing or self._configured_policy
        ended = self._table.update(view)
        for slot in [slot for slot in self._slots if slot.group.id in ended]:
            slot.lost = True
            slot.on_lost()
        self._on_groups()
        self._grant()
        self.on_demand()

    def acquire_now(self, ticket: Ticket) -> Slot | None:
        """A slot if a group is free now, otherwise ``None``."""
        group = None if self._closing else self._choose(ticket)
        return None if group is None else self._begin(ticket, group)

    async def acquire(self, ticket: Ticket, *, deadline: float) -> Slot:
        """A slot for the request, as soon as a group is free.

        ``deadline`` is a time of the event loop's clock.

        :raises LineFullError: if too many requests wait
        :raises WaitedTooLongError: if the deadline or ``max_wait_s`` passed before a group was free
        :raises NoGroupError: if the pool has no group, and either none can start, or the request must not start one
        :raises ClosingError: if this gateway shuts down. If ``close`` got another error, that error is raised instead
        """
        if self._closing is not None:
            raise self._closing
        if not self._table.ready and (self.start_failure is not None or not ticket.wakes):
            raise NoGroupError
        return self.acquire_now(ticket) or self._begin(ticket, await self._wait(ticket, deadline))

    def answered(self, slot: Slot) -> None:
        """The group has begun to answer, so it takes requests."""
        self._table.answered(slot.group)

    def refused(self, slot: Slot, *, leaves: bool) -> None:
        """The group has refused the request: it is full, or takes no more requests (``leaves``). Releases the slot."""
        if leaves:
            self._table.leaves(slot.group)
        self._count_end(slot)
        if not leaves:
            self._later(self._table.refused(slot.group), self._table.unblock, slot.group)
        self._grant()
        self.on_demand()

    def unreachable(self, slot: Slot) -> bool:
        """The group does not accept connections. Releases the slot. Returns whether the group was ready before."""
        was_ready = any(group is slot.group for group in self._table.ready)
        pause_s = self._table.unreachable(slot.group)
        if was_ready:  # otherwise its pause has begun already
            self._later(pause_s, self._table.reachable, slot.group)
        slot.release()
        return was_ready

    def broke(self, slot: Slot, ticket: Ticket) -> None:
        """The group broke before it answered the request of this ticket. Releases the slot.

        The request goes to another group. If there is none, the same group may get the request again after a pause: if
        the group still holds its lease, perhaps only the connection broke.
        """
        pause_s = BROKEN_PAUSE_S * 2**ticket.breaks
        ticket.breaks += 1
        ticket.broke[slot.group.id] = asyncio.get_running_loop().time() + pause_s
        asyncio.get_running_loop().call_later(pause_s, self._grant)
        slot.release()

    def end(self, slot: Slot) -> None:
        """Count the end of an answer. Called by the slot."""
        if self._count_end(slot):
            self._grant()
            self.on_demand()

    def close(self, error: Exception | None = None) -> None:
        """Refuse all requests that wait and all new ones, with ``error`` (default: :class:`ClosingError`)."""
        self._closing = error or ClosingError()
        self._line.refuse_all(self._closing)

    def _count_end(self, slot: Slot) -> bool:
        if slot not in self._slots:
            return False
        self._slots.discard(slot)
        self._table.ended(slot.group)
        return True

    def _begin(self, ticket: Ticket, group: Candidate) -> Slot:
        ticket.tried = True
        slot = Slot(group, self)
        self._slots.add(slot)
        self.on_demand()
        return slot

    async def _wait(self, ticket: Ticket, deadline: float) -> Candidate:
        loop = asyncio.get_running_loop()
        waiter = self._line.join(ticket)
        self.on_demand()
        timer = loop.call_at(min(deadline, loop.time() + self._max_wait_s), _expire, waiter.granted)
        try:
            return await waiter.granted
        except asyncio.CancelledError:
            granted = waiter.granted
            if granted.done() and not granted.cancelled() and granted.exception() is None:
                self._table.ended(granted.result())  # cancelled just after it got a group
                self._grant()
            raise
        finally:
            timer.cancel()
            self._line.leave(waiter)
            self.on_demand()

    def _grant(self) -> None:
        if not len(self._line):
            return
        if self.start_failure is not None:
            self._line.refuse_all(NoGroupError())
        elif not self._table.ready:
            self._line.refuse_non_waking(NoGroupError())
        policy, groups = self._arranged_for
        if policy is not self.policy or groups is not self._table.ready:
            self._arranged_for = (self.policy, self._table.ready)
            self._line.regroup()
        self._line.grant(choose=self._choose, any_free=self._any_free, only_group=self._only_group)

    def _any_free(self) -> bool:
        return any(group.free for group in self._table.ready)

    def _choose(self, ticket: Ticket) -> Candidate | None:
        """Choose a group and count the request as sent to it."""
        group = POLICIES[self.policy].choose(self._groups_for(ticket), ticket.request, self._choices)
        if group is not None:
            self._choices += 1
            self._table.sent(group)
        return group

    def _only_group(self, ticket: Ticket) -> Candidate | None:
        return POLICIES[self.policy].only_group(self._groups_for(ticket), ticket.request)

    def _groups_for(self, ticket: Ticket) -> Sequence[Candidate]:
        """The groups that did not break while they had the request; if all did, the groups whose pause has ended."""
        groups = self._table.ready
        if ticket.broke:
            now = asyncio.get_running_loop().time()
            others = [group for group in groups if group.id not in ticket.broke]
            groups = others or [group for group in groups if ticket.broke[group.id] <= now]
        return groups

    def _later(self, seconds: float, change: Callable[[Candidate], None], group: Candidate) -> None:
        def do() -> None:
            change(group)
            self._grant()

        asyncio.get_running_loop().call_later(seconds, do)


def _expire(granted: asyncio.Future[Candidate]) -> None:
    if not granted.done():
        granted.set_exception(WaitedTooLongError())
