"""Decides which task is next, by weighted fair shares between tenants, and by priority and order within a
tenant.

This is start-time fair queueing. Each tenant has a virtual time: its GPU-seconds divided by its weight. The
waiting tenant with the smallest virtual time is served. It is charged an estimate, which is corrected when the
work ends. The pool's virtual time is the highest virtual time that any tenant had when it was served. If a
tenant returns after a pause with a virtual time below the pool's, the tenant's virtual time is raised to the
pool's. So a tenant cannot save up GPU time during a pause and then starve others.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from daybreak_server.domain.policy import PRIORITY_BAND


def order(priority: int, sequence: int) -> int:
    """A task's place among its tenant's tasks; smaller is earlier. Retries and releases do not change the place."""
    return priority * PRIORITY_BAND + sequence


@dataclass(slots=True)
class FairQueue:
    """The waiting tasks of a pool, and the virtual times: ``vtime`` of the pool, ``shares`` of the tenants. Any string
    may be the id of a task."""

    vtime: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def weight(self, tenant: str) -> float:
        """A tenant's weight; 1 unless set."""
        return self.weights.get(tenant, 1.0)

    def push(self, tenant: str, place: int, task: str) -> None:
        """Add ``task`` at ``place``."""
        if tenant not in self._waiting:
            self.shares[tenant] = max(self.shares.get(tenant, 0.0), self.vtime)
            self._waiting[tenant] = []
        bisect.insort(self._waiting[tenant], (place, task))

    def remove(self, tenant: str, place: int, task: str) -> None:
        """Remove ``task`` when it starts, or when it must not start any more."""
        queue = self._waiting[tenant]
        queue.remove((place, task))
        if not queue:
            del self._waiting[tenant]

    def tenants(self) -> list[str]:
        """Tenants with waiting tasks, by virtual time and then by name. The first is served next."""
        return sorted(self._waiting, key=lambda name: (self.shares[name], name.encode()))

    def waiting(self, tenant: str) -> Iterator[str]:
        """A tenant's waiting tasks in order."""
        return iter([task for _, task in self._waiting.get(tenant, [])])

    def serve(self, tenant: str, cost_s: float) -> float:
        """Charge ``tenant`` for a task that starts. Returns the charge, for :meth:`correct`."""
        self.vtime = max(self.vtime, self.shares.get(tenant, 0.0))
        charge = cost_s / self.weight(tenant)
        self.shares[tenant] = self.shares.get(tenant, 0.0) + charge
        return charge

    def correct(self, tenant: str, charge: float, used_s: float) -> None:
        """Replace the estimated ``charge`` by the actual use."""
        self.shares[tenant] = self.shares.get(tenant, 0.0) + (used_s / self.weight(tenant) - charge)

    def forget(self, tenant: str) -> None:
        """Forget a tenant that has no waiting task, unless its virtual time is ahead of the pool's."""
        if tenant not in self._waiting and self.shares.get(tenant, 0.0) <= self.vtime:
            self.shares.pop(tenant, None)
            self.weights.pop(tenant, None)

    def position(self, tenant: str, place: int, cost_s: float) -> int:
        """The estimated position of ``tenant``'s task at ``place``; 1 is next. The estimate assumes that each task of
        another tenant also costs ``cost_s``."""
        ahead = sum(1 for at, _ in self._waiting.get(tenant, []) if at < place)
        share = self.shares.get(tenant, 0.0)
        if tenant not in self._waiting:
            share = max(share, self.vtime)
        cost = max(cost_s, 1e-9)
        turn = share + ahead * cost / self.weight(tenant)
        total = 1 + ahead
        for other, queue in self._waiting.items():
            if other != tenant:
                before = (turn - self.shares[other]) * self.weight(other) / cost
                first = math.ceil(before)
                if first == before and other.encode() < tenant.encode():
                    first += 1
                total += max(0, min(len(queue), first))
        return total
