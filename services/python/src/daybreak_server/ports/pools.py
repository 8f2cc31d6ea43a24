"""Pools and their groups as the operator sees them in the task store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import PoolReport, PoolView


class GroupStore(Protocol):
    """What the operator asks of the task store. All methods raise :class:`StoreUnavailableError`."""

    async def pool(self, name: str) -> PoolView:
        """The pool's numbers and groups, all of them: on hosts of a group that is not told of, nobody seems to work."""

    async def drain(self, pool: str, group_id: GroupId, *, on: bool = True) -> bool:
        """Mark a group to drain (or not any more); whether there is such a group."""

    async def cordon_hosts(self, pool: str, hosts: Sequence[str], *, closed: bool = True) -> None:
        """From now on a group that registers with a rank on one of these hosts is marked to drain."""

    async def tell(self, pool: str, report: PoolReport, *, ttl_s: float) -> None:
        """Show this to clients; it counts for ``ttl_s``, or until something else is told."""
