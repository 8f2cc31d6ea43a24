"""Changes to the setting ``batching`` of running pools."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol


class BatchingStore(Protocol):
    """Where gateways store changes to ``batching``. Each method may raise :class:`StoreUnavailableError`."""

    async def set_batching(self, pool: str, changes: Mapping[str, Any]) -> None:
        """Change values of ``batching``. ``None`` undoes an earlier change, so that the value in the settings applies
        again. Groups apply changes within about two seconds."""
