"""A strategy for streaming sessions that chooses batches that cannot run."""

from __future__ import annotations

from daybreak_server.batching.iterations import BatchStrategy, Choice, IterationRules, Waiting


class Twice(BatchStrategy[str]):
    """Chooses each session twice."""

    def choose(self, waiting: Waiting[str], rules: IterationRules, now: float) -> Choice[str] | None:
        first = waiting.prefill.first(1)
        return Choice(prefill=first * 2) if first else None
