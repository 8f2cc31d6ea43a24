"""An example of a strategy for streaming sessions. See docs/07-adding-a-workload.md.

DAYBREAK_POOLS__LOUDNESS__SESSIONS__STRATEGY=alternate:Alternate
"""

from __future__ import annotations

from daybreak_server.batching.iterations import BatchStrategy, Choice, IterationRules, Waiting

PREFILL_SESSIONS = 2


class Alternate(BatchStrategy[str]):
    """Prefill and decode alternate, so neither starves. A batch of prefill has at most two sessions, so it is short,
    and the sessions that decode never wait long."""

    def choose(self, waiting: Waiting[str], rules: IterationRules, now: float) -> Choice[str] | None:
        """The sessions of the next batch."""
        if waiting.decode and not (waiting.prefill and waiting.decoded_last):
            return Choice(decode=waiting.decode.first(rules.max_batch_size))
        if waiting.prefill:
            return Choice(prefill=waiting.prefill.first(min(PREFILL_SESSIONS, rules.max_batch_size)))
        return None
