"""Pools and their groups as the operator sees them in the task store."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import PoolReport, PoolView


class GroupStore(Protocol):
    """The part of the task store that the operator uses. Each method may raise :class:`StoreUnavailableError`."""

    async def pool(self, name: str) -> PoolView:
        """The pool's numbers and all its groups. If one were left out, the operator could remove that group's hosts."""

    async def drain(self, pool: str, group_id: GroupId, *, on: bool = True) -> bool:
        """Set or clear a group's drain mark. Returns whether the group exists."""

    async def cordon_hosts(self, pool: str, hosts: Sequence[str], *, cordoned: bool = True) -> None:
        """Cordon these hosts. ``cordoned=False`` ends the cordon.

        The store marks a group to drain when the group registers with a rank on a cordoned host.
        """

    async def publish_report(self, pool: str, report: PoolReport, *, ttl_s: float) -> None:
        """Publish the operator's report to clients. It is valid for ``ttl_s``, or until the next report."""
