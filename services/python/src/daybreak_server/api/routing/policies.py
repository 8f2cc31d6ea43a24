"""The policies: which group gets a request.

Each policy is a pure function of the groups, the request and ``choices``, the number of choices that the router has
made before. It returns a group that is free, or ``None`` if the request should wait. With the same arguments it makes
the same choice. The groups are those that are ready and may get this request. Some of them may be full.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Protocol

from daybreak_server.api.routing.candidates import Candidate, RoutingRequest, key_of
from daybreak_server.domain.routing import RoutingPolicy

BOUND = 1.25
"""The policy ``prefix`` passes over a group if its load would exceed this multiple of the mean load. This spreads the
requests with a popular prefix over several groups."""
_relative_load = attrgetter("relative_load")


class Policy(Protocol):
    """Chooses a group."""

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """A free group, or ``None``."""

    def only_group(self, groups: Sequence[Candidate], request: RoutingRequest) -> Candidate | None:
        """The only group that may get the request; while it is full, the request waits. ``None`` if several may."""


class _AnyGroup:
    """Base class of the policies under which a request may go to any group."""

    def only_group(self, groups: Sequence[Candidate], request: RoutingRequest) -> Candidate | None:
        """See the protocol."""
        return None


class LeastLoaded(_AnyGroup):
    """The free group with the smallest load. The load is the number of the group's requests, divided by its capacity if
    it has one. The request to be sent counts as one of the group's requests. Equal groups take turns."""

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        free = [group for group in groups if group.free]
        if not free:
            return None
        start = choices % len(free)
        return min(free[start:] + free[:start] if start else free, key=_relative_load)


class RoundRobin(_AnyGroup):
    """One group after the other; full ones are skipped."""

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        count = len(groups)
        for offset in range(count):
            group = groups[(choices + offset) % count]
            if group.free:
                return group
        return None


class PowerOfTwo(_AnyGroup):
    """The less loaded of two free groups, which are picked by a hash of ``choices``, as if at random.

    This keeps many gateways from all choosing the same group between two reports of its load.
    """

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        free = [group for group in groups if group.free]
        if len(free) < 2:
            return free[0] if free else None
        number = key_of(choices.to_bytes(8, "little"))
        first = number % len(free)
        second = (first + 1 + (number >> 32) % (len(free) - 1)) % len(free)
        return min(free[first], free[second], key=_relative_load)


class GpuMemory(_AnyGroup):
    """The free group with the most free memory per request. This request counts as one of the group's requests.

    Groups that do not report their memory come last, the least loaded first.
    """

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        free = [group for group in groups if group.free]
        return min(free, key=_memory_order) if free else None


class SessionAffinity:
    """The same group for all requests of a session. While that group is full, they wait.

    If the group leaves, only its own sessions move to other groups. A new group takes over a share of the
    sessions. A request without a session goes to the least loaded group.
    """

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        if request.session is None:
            return _LEAST_LOADED.choose(groups, request, choices)
        chosen = self.only_group(groups, request)
        return chosen if chosen is not None and chosen.free else None

    def only_group(self, groups: Sequence[Candidate], request: RoutingRequest) -> Candidate | None:
        """See the protocol."""
        if request.session is None or not groups:
            return None
        key = key_of(request.session)
        return max(groups, key=lambda group: group.weight(key))


class Prefix(_AnyGroup):
    """The same group for bodies that begin with the same bytes, because it may have these bytes in its cache.

    A group whose load would exceed ``BOUND`` times the mean load is passed over, so a prefix that all requests share
    does not overload one group. If all free groups are passed over, or the request has no body, the least loaded free
    group is chosen.
    """

    def choose(self, groups: Sequence[Candidate], request: RoutingRequest, choices: int) -> Candidate | None:
        """See the protocol."""
        if not request.prefix:
            return _LEAST_LOADED.choose(groups, request, choices)
        if not groups:
            return None
        key = key_of(request.prefix)
        bound = math.ceil(BOUND * (sum(group.load for group in groups) + 1) / len(groups))
        within = [group for group in groups if group.free and group.load < bound]
        if within:
            return max(within, key=lambda group: group.weight(key))
        return _LEAST_LOADED.choose(groups, request, choices)


def _memory_order(group: Candidate) -> tuple[float, float]:
    memory = (group.free_memory_bytes or 0) / (group.own + group.others + 1)
    return (-memory, group.relative_load)


_LEAST_LOADED = LeastLoaded()
POLICIES: Mapping[RoutingPolicy, Policy] = {
    RoutingPolicy.LEAST_LOADED: _LEAST_LOADED,
    RoutingPolicy.ROUND_ROBIN: RoundRobin(),
    RoutingPolicy.POWER_OF_TWO: PowerOfTwo(),
    RoutingPolicy.GPU_MEMORY: GpuMemory(),
    RoutingPolicy.SESSION: SessionAffinity(),
    RoutingPolicy.PREFIX: Prefix(),
}
