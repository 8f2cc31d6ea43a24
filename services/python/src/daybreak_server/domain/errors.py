"""The error that the rules of the domain raise."""

from __future__ import annotations

from collections.abc import Sequence


class InvalidTransitionError(Exception):
    """No row of the state table allows this event in this state. ``history`` says how the task reached it."""

    def __init__(self, *, state: str, event: str, history: Sequence[str] = ()) -> None:
        self.state = state
        self.event = event
        self.history = tuple(history)
        path = " → ".join(self.history) or "none"
        super().__init__(f"a {state} task does not allow the event {event!r}; its history: {path}")
