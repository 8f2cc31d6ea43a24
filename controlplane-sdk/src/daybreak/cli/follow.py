"""Follows a task on the screen until it ends or the user presses Ctrl-C. Can save the task's previews in a folder."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass, field
from pathlib import Path

from daybreak.cli.output import Output
from daybreak.cli.progress_bar import ProgressView, progress_view
from daybreak.cli.timeline import Timeline
from daybreak.errors import DaybreakError
from daybreak.sync import Client
from daybreak.wire import Event, EventType, Task


@dataclass(kw_only=True)
class TaskFollower:
    """Follows one task to its end. With ``cancel_on_interrupt`` the first Ctrl-C cancels the task."""

    client: Client
    output: Output
    previews: Path | None = None
    cancel_on_interrupt: bool = False
    after: str | None = None
    cancel_requested: bool = field(default=False, init=False)
    """Whether the user has cancelled the task."""

    def run(self, task: Task) -> Timeline:
        """Follow the task to its end. Raises ``KeyboardInterrupt`` if the user stops following."""
        timeline = Timeline.of(task)
        timeline.last_id = self.after
        with progress_view(self.output.err) as view:
            view.update(timeline)
            while True:
                try:
                    self._follow(task, timeline, view)
                    break
                except KeyboardInterrupt:
                    if not self.cancel_on_interrupt or self.cancel_requested:
                        raise
                    self._cancel(task, view)
        return timeline

    def _follow(self, task: Task, timeline: Timeline, view: ProgressView) -> None:
        for event in self.client.events(task.id, after=timeline.last_id):
            if self.output.as_json and not self.cancel_on_interrupt:
                self.output.json(event.to_json())
            line = timeline.update(event)
            if line is not None:
                view.log(line)
            if event.type is EventType.PREVIEW and self.previews is not None:
                self._save_preview(task, event, self.previews, view)
            view.update(timeline)

    def _cancel(self, task: Task, view: ProgressView) -> None:
        self.cancel_requested = True
        view.log(f"cancelling {task.id}; press Ctrl-C again to exit without waiting")
        self.client.cancel(task)

    def _save_preview(self, task: Task, event: Event, folder: Path, view: ProgressView) -> None:
        """Save a task's latest preview. If this fails, for example because the preview has expired, print a line."""
        try:
            preview = self.client.preview(task)
        except DaybreakError as error:
            view.log(f"cannot download the preview of step {event.data.get('step')}: {error}")
            return
        step = event.data.get("step")
        suffix = mimetypes.guess_extension(preview.content_type.split(";")[0]) or ".webp"
        file = folder / f"step-{step if isinstance(step, int) else 0:04d}{suffix}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(preview.content)
        except OSError as error:  # A full disk must not keep the user from following the task.
            view.log(f"cannot save the preview of step {step}: {file}: {error.strerror or error}")
