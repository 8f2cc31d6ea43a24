"""A task as its client sees it: every event, read by a background thread."""

from __future__ import annotations

import threading
from collections.abc import Callable

from daybreak import Client, DaybreakError, Event, Task
from testkit.kubernetes.waiting import wait_until
from testkit.log import log

TERMINAL = frozenset({"succeeded", "failed", "cancelled", "expired"})
_LOGGED = frozenset({"queued", "wake", "started", "checkpoint", "retrying", *TERMINAL})


class TaskTimeline:
    """Follows a task from its first event to its last."""

    def __init__(self, client: Client, task: Task) -> None:
        self.task = task
        self.events: list[Event] = []
        self._client = client
        self._error: DaybreakError | None = None
        self._thread = threading.Thread(target=self._read, name=f"timeline-{task.id}", daemon=True)
        self._thread.start()

    @property
    def wakes(self) -> list[str]:
        """The phases of the pool's wake that were streamed, in order."""
        return [str(event.data["phase"]) for event in self.events if event.type == "wake"]

    @property
    def steps(self) -> list[int]:
        """The step of each progress event, in order. A resumed attempt does not repeat steps before its checkpoint."""
        return [
            int(event.data["step"])
            for event in self.events
            if event.type == "progress" and event.data.get("step")
        ]

    def kinds(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.type in kinds]

    def wait_for(self, matches: Callable[[Event], bool], *, timeout_s: float, what: str) -> Event:
        """Wait for the first matching event. :raises AssertionError: if the stream ends without it."""

        def find() -> Event | None:
            event = next((event for event in list(self.events) if matches(event)), None)
            assert event or self._thread.is_alive(), f"{self.task.id} ended without {what}: {self._ending()}"
            return event

        event = wait_until(find, timeout_s=timeout_s, what=f"{what} of {self.task.id}", pause_s=0.05)
        assert event is not None
        return event

    def wait_for_step(self, step: int, *, timeout_s: float) -> Event:
        """Wait until the task has completed ``step`` steps."""
        return self.wait_for(
            lambda event: event.type == "progress" and int(event.data.get("step", 0)) >= step,
            timeout_s=timeout_s,
            what=f"step {step}",
        )

    def wait_for_end(self, *, timeout_s: float) -> Task:
        """Wait for the task's end.

        :raises AssertionError: if the stream broke, its events are out of order, or it does not end with its only
            terminal event.
        """
        wait_until(
            lambda: not self._thread.is_alive(), timeout_s=timeout_s, what=f"the end of {self.task.id}"
        )
        assert self._error is None, f"the stream of {self.task.id} broke: {self._error}"
        ids = [event.id for event in self.events if event.id is not None]
        order = [tuple(map(int, event_id.split("-"))) for event_id in ids]
        assert order == sorted(set(order)), f"{self.task.id}: event ids must rise: {ids}"
        endings = self.kinds(*TERMINAL)
        assert len(endings) == 1, f"{self.task.id} must end once, not {[event.type for event in endings]}"
        assert endings[0].id == ids[-1]
        return self._client.get(self.task)

    def _ending(self) -> str:
        return str(self._error or [(event.type, dict(event.data)) for event in self.events[-2:]])

    def _read(self) -> None:
        try:
            for event in self._client.events(self.task):
                self.events.append(event)
                if event.type in _LOGGED:
                    log(f"  {self.task.id[-8:]} {event.type} {_short(event)}")
        except DaybreakError as exc:
            self._error = exc


def _short(event: Event) -> str:
    shown = {name: value for name, value in event.data.items() if name not in {"artifacts", "usage"}}
    return ", ".join(f"{name}={value}" for name, value in shown.items())
