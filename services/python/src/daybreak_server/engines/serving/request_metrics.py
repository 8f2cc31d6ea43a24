"""The measurements that a leader makes of its requests. None of them raises, so that an error here fails no request."""

from __future__ import annotations

import time
from enum import StrEnum

from daybreak_server.domain.serving_headers import Refusal
from daybreak_server.engines.common.rank_metrics import harmless
from daybreak_server.observability import request_catalogue as catalogue
from daybreak_server.ports.metrics import Meter, NoMeter


class RequestOutcome(StrEnum):
    """How a request ended."""

    ANSWERED = "answered"
    """The whole answer was sent, whatever its status."""
    FAILED = "failed"
    """The workload raised an error or showed no progress."""
    INVALID = "invalid"
    """The request could not be read."""
    DEADLINE = "deadline"
    """The deadline passed before the answer was complete."""
    GONE = "gone"
    """The client closed the connection, or did not read the answer."""
    BUSY = Refusal.BUSY.value
    """Refused: the group held as many requests as its capacity."""
    DRAINING = Refusal.DRAINING.value
    """The group drained or left, so it refused or stopped the request. Or the group broke before the request began."""
    BROKEN = Refusal.BROKEN.value
    """The group broke while it ran the request."""
    OTHER = Refusal.OTHER.value
    """Refused: the request was for another group, which had this address before."""


class TokenKind(StrEnum):
    """The kind of a token of a request."""

    INPUT = "input"
    """Read by the model."""
    OUTPUT = "output"
    """Written by the model."""


class RequestMetrics:
    """The metrics of the requests of one leader. Without a meter, nothing is measured."""

    def __init__(self, meter: Meter | None = None, *, pool: str = "") -> None:
        self._meter = meter or NoMeter()
        self._pool = pool
        self._begin_counting()

    @harmless
    def _begin_counting(self) -> None:
        """Export a 0 for each outcome and each kind of token from the start.

        Otherwise, Prometheus's ``rate`` would miss the first increase of each series.
        """
        for outcome in RequestOutcome:
            self._meter.counter(catalogue.RANK_REQUESTS, self._pool, outcome).inc(0)
        for kind in TokenKind:
            self._meter.counter(catalogue.RANK_TOKENS, self._pool, kind).inc(0)

    @harmless
    def count_tokens(self, *, input: int = 0, output: int = 0) -> None:
        """Count the tokens that the workload has read (``input``) and produced (``output``)."""
        for kind, count in ((TokenKind.INPUT, input), (TokenKind.OUTPUT, output)):
            if count > 0:
                self._meter.counter(catalogue.RANK_TOKENS, self._pool, kind).inc(count)

    @harmless
    def set_held(self, requests: int) -> None:
        """Set the number of requests that the group holds now."""
        self._meter.gauge(catalogue.RANK_IN_FLIGHT, self._pool).set(requests)

    @harmless
    def first_byte(self, began: float) -> None:
        """Measure the time to the first byte of the answer. The request began at the monotonic time ``began``."""
        series = self._meter.histogram(catalogue.RANK_FIRST_BYTE, self._pool)
        series.observe(time.monotonic() - began)

    @harmless
    def ended(self, outcome: RequestOutcome, began: float) -> None:
        """Count a request that has ended. It began at the monotonic time ``began``."""
        self._meter.counter(catalogue.RANK_REQUESTS, self._pool, outcome).inc()
        if outcome is RequestOutcome.ANSWERED:
            self._meter.histogram(catalogue.RANK_REQUEST, self._pool).observe(time.monotonic() - began)
