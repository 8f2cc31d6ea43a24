"""Changes to the setting ``batching`` of running pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class BatchingStore(Protocol):
    """Where gateways store these changes. Each method may raise :class:`StoreUnavailableError`."""

    async def set_batching(self, pool: str, changes: Mapping[str, Any]) -> None:
        """Change values. ``None`` restores the value in the settings. Groups apply changes within about two seconds."""
