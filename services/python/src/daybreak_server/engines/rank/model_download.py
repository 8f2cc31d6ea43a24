"""What is shown of a model while it comes to this node."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from daybreak_server.engines.rank.errors import GroupBrokenError
from daybreak_server.engines.rank.heartbeat import Heartbeat
from daybreak_server.engines.rank.lease_renewer import LeaseRenewer

FETCH_AGAIN_S: Final = 15
"""Pause before a model that could not be had is asked for again."""
_SHOWN_S: Final = 1.0
_CHARS: Final = 300


class Fetching:
    """Keeps the pulse while bytes come, and shows how many on the group's record."""

    def __init__(
        self,
        heartbeat: Heartbeat,
        lease_renewer: LeaseRenewer | None,
        *,
        limit_s: float,
        going: Callable[[], bool],
    ) -> None:
        self._heartbeat = heartbeat
        self._lease_renewer = lease_renewer
        self._limit_s = limit_s
        self._going = going
        self._bytes = -1
        self._shown = 0.0

    def told(self, there: int, total: int) -> None:
        """So many bytes are there, of so many. :raises GroupBrokenError: when the rank is to leave."""
        if self._going():
            raise GroupBrokenError("told to leave")
        if there != self._bytes:  # what stands still is a stall in the end
            self._bytes = there
            self.beat()
        now = time.monotonic()
        if now - self._shown >= _SHOWN_S or there == total:
            self._shown = now
            self.said(f"fetched {there / 1e9:.2f} of {total / 1e9:.2f} GB" if there < total else "")

    def said(self, what: str) -> None:
        """Show this beside the phase."""
        if self._lease_renewer is not None:
            self._lease_renewer.update(detail=what[:_CHARS])

    def beat(self) -> None:
        """It goes on."""
        self._heartbeat.beat("model", limit_s=self._limit_s)
