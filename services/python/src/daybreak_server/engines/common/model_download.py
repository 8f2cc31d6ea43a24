"""Reports the progress of a model download: heartbeats when bytes arrive, and a text in the group's record."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from daybreak_server.engines.common.errors import GroupBrokenError
from daybreak_server.engines.common.heartbeat import Heartbeat
from daybreak_server.engines.common.lease_renewer import LeaseRenewer

DOWNLOAD_RETRY_S: Final = 15
"""Pause before a failed download is retried."""
_SHOW_EVERY_S: Final = 1.0
_MAX_DETAIL: Final = 300


class DownloadProgress:
    """Follows one rank's download. Only the leader has a ``lease_renewer``, so only the leader shows the progress."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        lease_renewer: LeaseRenewer | None,
        *,
        limit_s: float,
        stopping: Callable[[], bool],
    ) -> None:
        self._heartbeat = heartbeat
        self._lease_renewer = lease_renewer
        self._limit_s = limit_s
        self._stopping = stopping
        self._bytes = -1
        self._shown_at = 0.0

    def on_bytes(self, present: int, total: int) -> None:
        """Record how many bytes are on this node.

        :raises GroupBrokenError: if the rank should leave.
        """
        if self._stopping():
            raise GroupBrokenError("this rank was asked to leave during the download of its model")
        # Without new bytes there is no beat, so a download that hangs counts as a stall.
        if present != self._bytes:
            self._bytes = present
            self.beat()
        now = time.monotonic()
        if now - self._shown_at >= _SHOW_EVERY_S or present == total:
            self._shown_at = now
            self.show(f"fetched {present / 1e9:.2f} of {total / 1e9:.2f} GB" if present < total else "")

    def show(self, detail: str) -> None:
        """Show ``detail`` next to the phase in the group's record."""
        if self._lease_renewer is not None:
            self._lease_renewer.update(detail=detail[:_MAX_DETAIL])

    def beat(self) -> None:
        """Record that the download advances, or that the rank waits to retry it."""
        self._heartbeat.beat("model", limit_s=self._limit_s)
