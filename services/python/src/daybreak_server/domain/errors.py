"""What the rules raise."""

from __future__ import annotations

from collections.abc import Sequence


class InvalidTransitionError(Exception):
    """No row of the state table allows this event in this state; ``history`` is how the task came here."""

    def __init__(self, *, state: str, event: str, history: Sequence[str] = ()) -> None:
        self.state = state
        self.event = event
        self.history = tuple(history)
        came = " → ".join(self.history) or "nothing"
        super().__init__(f"a {state} task does not take {event!r}; its history: {came}")
