"""The outcome of a run: how late the turns of its users were, and whether the device kept up."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import Any

from daybreak_server.batching.iterations import BatchRecord
from daybreak_server.batching.iterations.lag import percentile

DRIFT_S = 0.25
"""If the mean lag of the last third of a run exceeds that of the second third by more than this, the lag counts as
growing without end."""


@dataclass(slots=True, kw_only=True)
class Outcome:
    """The figures of one run."""

    for_s: float
    """How long the users spoke."""
    lags: list[tuple[float, float]] = field(default_factory=list)
    """For each turn: when its audio was complete, and how many seconds later the model had finished the turn."""
    tokens: int = 0
    busy_s: float = 0.0
    sizes: list[int] = field(default_factory=list)
    """The number of sessions in each batch."""
    gave_up: bool = False
    """Whether the run was stopped early, because turns were too late."""
    records: list[BatchRecord[Any]] = field(default_factory=list)

    def lag(self, share: float) -> float:
        """A percentile of the lags after the first third of the run."""
        return percentile((lag for _, lag in self._settled()), share)

    def _settled(self, third: int = 1) -> list[tuple[float, float]]:
        return [entry for entry in self.lags if entry[0] >= self.for_s * third / 3]

    @property
    def grows(self) -> bool:
        """Whether the lag grows without end. The lag also counts as growing if the run was stopped early, or if one of
        the last two thirds of the run has no finished turn."""
        if self.gave_up:
            return True
        late = [lag for _, lag in self._settled(2)]
        middle = [lag for at, lag in self._settled(1) if at < self.for_s * 2 / 3]
        return not late or not middle or statistics.fmean(late) > statistics.fmean(middle) + DRIFT_S

    def sustains(self, limit_s: float) -> bool:
        """Whether 95 % of the turns after the first third are less than ``limit_s`` late, and the lag does not grow."""
        return not self.grows and self.lag(0.95) < limit_s

    @property
    def busy(self) -> float:
        """The share of the time in which the device computed."""
        return self.busy_s / self.for_s

    @property
    def mean_batch(self) -> float:
        """The mean number of sessions in a batch."""
        return statistics.fmean(self.sizes) if self.sizes else 0.0

    @property
    def tokens_s(self) -> float:
        """Tokens per second."""
        return self.tokens / self.for_s
