"""Read a task's log: the lines that its workload and its groups have written, each once and in order.

The lines of an attempt are numbered. So the client knows how many lines of an attempt are missing before a line that it
receives, whatever the reason: the group dropped them because they came too fast, or the server no longer has them.
Lines that are missing after the last line of an attempt are not counted.
"""

from __future__ import annotations

from typing import Any

from daybreak.core.effects import Emit, HttpRequest, Operation
from daybreak.core.follow import Stream, follow, require_event_id
from daybreak.core.replies import parse
from daybreak.core.retry import ApiRequest, Retry, request_with_retries
from daybreak.core.routes import TaskRef, task_path
from daybreak.wire import Event, EventList, EventType, LogLine
from daybreak.wire.events import MAX_LOG_PAGE


class LineReader:
    """Makes lines from events, and counts the lines that are missing between them."""

    def __init__(self, *, from_start: bool) -> None:
        """``from_start``: whether the events begin with the first event of the task. If they do, lines that are missing
        before the first received line are counted too."""
        self._attempt: int | None = 0 if from_start else None
        self._line = 0

    def read(self, event: Event) -> LogLine | None:
        """The event's line, or ``None`` if the event is not a line of the log."""
        if event.type is not EventType.LOG or event.id is None:
            return None
        attempt, number = event.attempt or 1, event.data.get("line")
        dropped = 0
        if isinstance(number, int):
            before = self._line if attempt == self._attempt else 0
            dropped = max(0, number - before - 1) if self._attempt is not None else 0
            self._attempt, self._line = attempt, number
        return LogLine(
            id=event.id,
            at=event.at,
            attempt=attempt,
            line=number if isinstance(number, int) else None,
            level=str(event.data.get("level", "info")),
            message=str(event.data.get("message", "")),
            dropped=dropped,
        )


def logs(task: TaskRef, *, after: str | None, follow_live: bool, retry: Retry) -> Operation[Any]:
    """Emit the task's stored lines: those after the event ``after``, or all lines if ``after`` is ``None``.

    With ``follow_live``, also emit new lines until the task ends.
    """
    if after:
        require_event_id(after)
    reader = LineReader(from_start=not after)
    if follow_live:
        stream = Stream(path="logs", params={"follow": "true"}, convert=reader.read)
        return (yield from follow(task, after=after, retry=retry, stream=stream))
    params = {"limit": str(MAX_LOG_PAGE)} | ({"after": after} if after else {})
    while True:
        request = HttpRequest(method="GET", path=task_path(task, "logs"), params=dict(params))
        page = yield from request_with_retries(
            ApiRequest(request=request, read=lambda reply: parse(reply, EventList)), retry
        )
        for event in page.data:
            line = reader.read(event)
            if line is not None:
                yield Emit(line)
        if not page.has_more or page.next is None:
            return None
        params["after"] = page.next
