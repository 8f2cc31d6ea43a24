"""One task as its client sees it: every event, read by a thread of its own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from daybreak import Client, DaybreakError, Event, Task
from testkit.kubernetes.waiting import wait_until
from testkit.log import say

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_TOLD = frozenset({"queued", "wake", "started", "checkpoint", "retrying", *TERMINAL})


class Story:
    """Follows a task from its first event to its last."""

    def __init__(self, client: Client, task: Task) -> None:
        self.task = task
        self.events: list[Event] = []
        self._client = client
        self._error: DaybreakError | None = None
        self._thread = threading.Thread(target=self._read, name=f"story-{task.id}", daemon=True)
        self._thread.start()

    @property
    def wakes(self) -> list[str]:
        """The phases of the pool's wake that were told, in order."""
        return [str(one.data["phase"]) for one in self.events if one.type == "wake"]

    @property
    def steps(self) -> list[int]:
        """The steps that were told, in order; without those of an attempt that was lost, where it was resumed."""
        return [
            int(one.data["step"]) for one in self.events if one.type == "progress" and one.data.get("step")
        ]

    def kinds(self, *kinds: str) -> list[Event]:
        return [one for one in self.events if one.type in kinds]

    def until(self, found: Callable[[Event], bool], *, timeout_s: float, what: str) -> Event:
        """The first event like this, from the beginning. :raises AssertionError: when the task ends without it."""

        def look() -> Event | None:
            event = next((one for one in list(self.events) if found(one)), None)
            assert event or self._thread.is_alive(), f"{self.task.id} ended without {what}: {self._ending()}"
            return event

        event = wait_until(look, timeout_s=timeout_s, what=f"{what} of {self.task.id}", pause_s=0.05)
        assert event is not None
        return event

    def at_step(self, step: int, *, timeout_s: float) -> Event:
        """Until it is known to have made so many steps."""
        return self.until(
            lambda one: one.type == "progress" and int(one.data.get("step", 0)) >= step,
            timeout_s=timeout_s,
            what=f"step {step}",
        )

    def end(self, *, timeout_s: float) -> Task:
        """The task after its last event. :raises AssertionError: when the stream is not what it must be."""
        wait_until(
            lambda: not self._thread.is_alive(), timeout_s=timeout_s, what=f"the end of {self.task.id}"
        )
        assert self._error is None, f"the stream of {self.task.id} broke: {self._error}"
        ids = [one.id for one in self.events if one.id is not None]
        order = [tuple(map(int, one.split("-"))) for one in ids]
        assert order == sorted(set(order)), f"{self.task.id}: event ids must rise: {ids}"
        endings = self.kinds(*TERMINAL)
        assert len(endings) == 1, f"{self.task.id} must end once, not {[one.type for one in endings]}"
        assert endings[0] is [one for one in self.events if one.id is not None][-1]
        return self._client.get(self.task)

    def _ending(self) -> str:
        return str(self._error or [(one.type, dict(one.data)) for one in self.events[-2:]])

    def _read(self) -> None:
        try:
            for event in self._client.events(self.task):
                self.events.append(event)
                if event.type in _TOLD:
                    say(f"  {self.task.id[-8:]} {event.type} {_short(event)}")
        except DaybreakError as exc:
            self._error = exc


def _short(event: Event) -> str:
    shown = {name: value for name, value in event.data.items() if name not in {"artifacts", "usage"}}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
