"""Who is served next: weighted fair shares between tenants, priorities and order within one.

Start-time fair queueing: each tenant has a virtual time, GPU-seconds divided by weight. The tenant with the
smallest is served, and pays an estimate at once that is corrected when the work has ended. A tenant that
comes back after idling starts at the virtual time of the latest tenant served: it neither owes nor
saves up, so it cannot starve others.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from daybreak_server.domain.policy import PRIORITY_BAND


def order(priority: int, sequence: int) -> int:
    """A task's fixed place within its tenant: smaller is earlier. Kept through retries and hand-backs."""
    return priority * PRIORITY_BAND + sequence


@dataclass(slots=True)
class FairQueue:
    """The waiting tasks of a pool. Ids are any strings."""

    vtime: float = 0.0
    shares: dict[str, float] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)
    _waiting: dict[str, list[tuple[int, str]]] = field(default_factory=dict)

    def __len__(self) -> int:
        return sum(len(queue) for queue in self._waiting.values())

    def weight(self, tenant: str) -> float:
        """A tenant's share; 1 unless set."""
        return self.weights.get(tenant, 1.0)

    def push(self, tenant: str, place: int, task: str) -> None:
        """Let ``task`` wait at ``place``."""
        if tenant not in self._waiting:
            self.shares[tenant] = max(self.shares.get(tenant, 0.0), self.vtime)
            self._waiting[tenant] = []
        bisect.insort(self._waiting[tenant], (place, task))

    def remove(self, tenant: str, place: int, task: str) -> None:
        """Take ``task`` out, whether it is served or not."""
        queue = self._waiting[tenant]
        queue.remove((place, task))
        if not queue:
            del self._waiting[tenant]

    def tenants(self) -> list[str]:
        """Tenants with waiting work, the next to be served first."""
        return sorted(self._waiting, key=lambda name: (self.shares[name], name.encode()))

    def waiting(self, tenant: str) -> Iterator[str]:
        """A tenant's waiting tasks in order."""
        return iter([task for _, task in self._waiting.get(tenant, [])])

    def serve(self, tenant: str, cost_s: float) -> float:
        """Charge ``tenant`` for a task that begins; the charge, for :meth:`correct`."""
        self.vtime = max(self.vtime, self.shares.get(tenant, 0.0))
        charge = cost_s / self.weight(tenant)
        self.shares[tenant] = self.shares.get(tenant, 0.0) + charge
        return charge

    def correct(self, tenant: str, charge: float, used_s: float) -> None:
        """Replace an estimated ``charge`` by what was used."""
        self.shares[tenant] = self.shares.get(tenant, 0.0) + (used_s / self.weight(tenant) - charge)

    def forget(self, tenant: str) -> None:
        """Drop a tenant of whom nothing is left, unless it has used more than the pool's virtual time."""
        if tenant not in self._waiting and self.shares.get(tenant, 0.0) <= self.vtime:
            self.shares.pop(tenant, None)
            self.weights.pop(tenant, None)

    def position(self, tenant: str, place: int, cost_s: float) -> int:
        """1 is next: an estimate, as if all the others' tasks cost as much as this one."""
        ahead = sum(1 for at, _ in self._waiting.get(tenant, []) if at < place)
        own = self.shares.get(tenant, 0.0)
        if tenant not in self._waiting:
            own = max(own, self.vtime)
        cost = max(cost_s, 1e-9)
        turn = own + ahead * cost / self.weight(tenant)
        total = 1 + ahead
        for other, queue in self._waiting.items():
            if other != tenant:
                before = (turn - self.shares[other]) * self.weight(other) / cost
                first = math.ceil(before)
                if first == before and other.encode() < tenant.encode():
                    first += 1
                total += max(0, min(len(queue), first))
        return total
