"""The demand of a pool in the reference model: the number of requests in each gateway's latest report, and how many
groups these requests need."""

from __future__ import annotations

import math

from daybreak_server.adapters.redis.limits import WANTED_MAX
from verification.queue_model.pool import ModelPool


class ModelDemand:
    """The demand of ``pool``. The pool's lease clock decides when the leases of gateways end."""

    def __init__(self, pool: ModelPool) -> None:
        self._pool = pool
        self.target_load: float | None = None
        """The requests that one group should have; ``None`` for a pool that serves no requests."""
        self.requests: dict[str, tuple[int, int]] = {}
        """By gateway: the number of its requests, and the end of its lease on the lease clock."""
        self.needed_since: list[int] = []
        """For each wanted group, the time at which it was first needed."""

    def publish(self, gateway: str, requests: int, *, ttl_ms: int) -> int:
        """Record how many requests a gateway has. Returns the number of groups wanted."""
        self.requests.pop(gateway, None)
        if requests:
            self.requests[gateway] = (requests, self._pool.lease_clock + ttl_ms)
        self.update()
        return len(self.needed_since)

    def update(self) -> None:
        """Forget the requests of gateways whose leases are over. Count the groups that the remaining requests need."""
        clock, grace = self._pool.lease_clock, self._pool.grace
        self.requests = {name: held for name, held in self.requests.items() if clock < max(held[1], grace)}
        if self.target_load is None:
            self.requests.clear()
        total = sum(requests for requests, _ in self.requests.values())
        wanted = min(WANTED_MAX, math.ceil(total / (self.target_load or 1)))
        del self.needed_since[wanted:]
        self.needed_since += [self._pool.now] * (wanted - len(self.needed_since))
