"""Changes to the setting ``batching`` of pools that run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class BatchingStore(Protocol):
    """Where gateways store changes. All methods raise :class:`StoreUnavailableError`."""

    async def set_batching(self, pool: str, changes: Mapping[str, Any]) -> None:
        """Change values; ``None`` restores the value of the settings. Groups apply them within about two seconds."""
