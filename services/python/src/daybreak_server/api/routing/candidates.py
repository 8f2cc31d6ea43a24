"""What a policy knows of the groups from which it chooses, and of the request."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

_MASK = (1 << 64) - 1


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A group that may get a request. The router updates the figures in place as requests come and go."""

    id: str
    endpoint: str
    capacity: int | None = None
    """How many requests the group takes at once; ``None``: any number."""
    own: int = 0
    """This gateway's requests in flight to the group."""
    others: int = 0
    """Other gateways' requests in flight to the group, when the group last reported."""
    free_memory_bytes: int | None = None
    blocked: bool = False
    """Whether the group refused a request a moment ago because it was busy."""
    point: int = field(init=False)
    """The group's fixed number for rendezvous hashing."""

    def __post_init__(self) -> None:
        self.point = _mixed(zlib.crc32(self.id.encode()) << 32 | zlib.adler32(self.id.encode()))

    @property
    def load(self) -> int:
        """Requests in flight, as far as this gateway knows."""
        return self.own + self.others

    @property
    def relative_load(self) -> float:
        """The load with one more request, divided by the capacity if there is one. Policies compare groups by it."""
        return (self.own + self.others + 1) / (self.capacity or 1)

    @property
    def free(self) -> bool:
        """Whether the group may get one more request now.

        The requests of other gateways (``others``) do not count here, because their number is too old. If the group
        turns out to be full, it refuses the request, and then counts as blocked for a moment.
        """
        return not self.blocked and (self.capacity is None or self.own < self.capacity)

    def weight(self, key: int) -> int:
        """This group's score for a key. The group with the highest score comes first.

        The scores are the same in all gateways. When a group comes or goes, the first group changes for few keys only.
        """
        return _mixed(self.point ^ key)


@dataclass(slots=True, kw_only=True)  # not frozen: objects of a frozen class take longer to create
class RoutingRequest:
    """What policies may know of a request."""

    session: bytes | None = None
    """The name of the session to which the request belongs."""
    prefix: bytes = b""
    """The first bytes of the request's body."""


def key_of(data: bytes) -> int:
    """A number for a session or a prefix, the same in all gateways."""
    return _mixed(zlib.crc32(data) << 32 | zlib.adler32(data))


def _mixed(number: int) -> int:
    """Spread a number over 64 bits (the finalizer of splitmix64)."""
    number = (number + 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
