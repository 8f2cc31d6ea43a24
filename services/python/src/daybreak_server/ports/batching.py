"""The setting ``batching`` of pools, as far as it is changed while they run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class BatchingStore(Protocol):
    """Where gateways store changes. All methods raise :class:`StoreUnavailableError`."""

    async def set_batching(self, pool: str, changes: Mapping[str, Any]) -> None:
        """Change values; ``None``: as the settings say. Each group takes them within about a second."""
