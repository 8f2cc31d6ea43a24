"""The demand of pools of kind ``online``, as the gateways report it."""

from __future__ import annotations

from typing import Protocol


class DemandStore(Protocol):
    """Where gateways say how many requests they have. All methods raise :class:`StoreUnavailableError`."""

    async def publish_demand(self, pool: str, gateway: str, requests: int, *, ttl_s: float) -> None:
        """Say how many requests of the pool this gateway has: those that wait in it, and those that groups answer.

        The number replaces the gateway's earlier one. It expires after ``ttl_s``, so that a gateway that dies stops
        asking for groups. A running gateway must publish its number again before the earlier one expires. An outage of
        the store does not count towards ``ttl_s``.
        """
