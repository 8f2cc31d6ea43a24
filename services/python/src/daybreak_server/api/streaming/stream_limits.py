"""Limits the number of open streams, in this process and for each tenant."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from daybreak.wire import ErrorCode
from daybreak_server.api.errors import ApiError
from daybreak_server.observability.gateway_metrics import GatewayMetrics
from daybreak_server.settings.tree import HttpSettings


class StreamLimits:
    """Counts the open streams, and refuses a stream that would exceed a limit."""

    def __init__(self, settings: HttpSettings, metrics: GatewayMetrics) -> None:
        self._settings = settings
        self._metrics = metrics
        self._tenants: Counter[str] = Counter()
        self._open = 0

    @contextmanager
    def enter(self, tenant: str, kind: str) -> Iterator[None]:
        """Count a stream while it is open. :raises ApiError: ``too_many_streams``."""
        if self._open >= self._settings.max_streams:
            raise self._refusal(
                "streams", f"This server has {self._open:,} open streams, the most it allows."
            )
        if self._tenants[tenant] >= self._settings.max_streams_per_tenant:
            raise self._refusal(
                "streams_per_tenant",
                f"The tenant {tenant!r} has {self._tenants[tenant]:,} open streams, the most it may have.",
            )
        self._open += 1
        self._tenants[tenant] += 1
        self._metrics.stream_opened(kind)
        try:
            yield
        finally:
            self._metrics.stream_closed(kind)
            self._open -= 1
            self._tenants[tenant] -= 1
            if not self._tenants[tenant]:
                del self._tenants[tenant]

    @staticmethod
    def _refusal(limit: str, detail: str) -> ApiError:
        return ApiError(
            ErrorCode.TOO_MANY_STREAMS,
            f"{detail} Close one, or retry later.",
            limit=limit,
            retry_after_s=5.0,
        )
