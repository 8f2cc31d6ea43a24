"""What a leader measures while it computes the lines of files. The methods of :class:`BulkMetrics` never raise, because
an error would disturb this computation."""

from __future__ import annotations

from enum import StrEnum

from daybreak_server.engines.common.rank_metrics import harmless
from daybreak_server.observability import request_catalogue as catalogue
from daybreak_server.ports.metrics import Meter, NoMeter


class LineOutcome(StrEnum):
    """The kind of a line of the output."""

    COMPUTED = "computed"
    """The line has a result."""
    FAILED = "failed"
    """The line has an error."""


class BulkMetrics:
    """The metrics ``daybreak_rank_task_lines…`` of one leader. Without a meter, nothing is measured."""

    def __init__(self, meter: Meter | None = None, *, pool: str = "") -> None:
        self._meter = meter or NoMeter()
        self._pool = pool
        self._begin_counting()

    @harmless
    def _begin_counting(self) -> None:
        """Export the counters of both outcomes as 0, because a rate needs a value from before the first line."""
        for outcome in LineOutcome:
            self._meter.counter(catalogue.RANK_TASK_LINES, self._pool, outcome).inc(0)

    @harmless
    def lines(self, *, computed: int, failed: int) -> None:
        """Count the results (``computed``) and the errors (``failed``) that were written.

        If an attempt takes a line from the checkpoint, the line is not counted again. If the attempt computes a line
        again, the line is counted again.
        """
        for outcome, count in ((LineOutcome.COMPUTED, computed), (LineOutcome.FAILED, failed)):
            if count:
                self._meter.counter(catalogue.RANK_TASK_LINES, self._pool, outcome).inc(count)
