"""Following a task on the screen, with its pictures, until its end or Ctrl-C."""

from __future__ import annotations

import mimetypes
from dataclasses import dataclass, field
from pathlib import Path

from daybreak.cli.output import Output
from daybreak.cli.progress_bar import Show, show_on
from daybreak.cli.timeline import Story
from daybreak.errors import DaybreakError
from daybreak.sync import Client
from daybreak.wire import Event, EventType, Task


@dataclass(kw_only=True)
class Follow:
    """How to follow a task. ``cancel_on_interrupt`` asks the server to cancel at the first Ctrl-C."""

    client: Client
    output: Output
    previews: Path | None = None
    cancel_on_interrupt: bool = False
    after: str | None = None
    asked: bool = field(default=False, init=False)
    """Whether the user asked to cancel."""

    def run(self, task: Task) -> Story:
        """Follow to the end. Raises ``KeyboardInterrupt`` when the user leaves."""
        story = Story.of(task)
        story.last_id = self.after
        with show_on(self.output.err) as show:
            show.update(story)
            while True:
                try:
                    self._follow(task, story, show)
                    break
                except KeyboardInterrupt:
                    if not self.cancel_on_interrupt or self.asked:
                        raise
                    self._ask_to_cancel(task, show)
        return story

    def _follow(self, task: Task, story: Story, show: Show) -> None:
        for event in self.client.events(task.id, after=story.last_id):
            if self.output.as_json and not self.cancel_on_interrupt:
                self.output.json(event.to_json())
            line = story.tell(event)
            if line is not None:
                show.say(line)
            if event.type is EventType.PREVIEW and self.previews is not None:
                self._keep_preview(task, event, self.previews, show)
            show.update(story)

    def _ask_to_cancel(self, task: Task, show: Show) -> None:
        self.asked = True
        show.say(f"asking the server to cancel {task.id}; Ctrl-C again leaves without waiting for it")
        self.client.cancel(task)

    def _keep_preview(self, task: Task, event: Event, folder: Path, show: Show) -> None:
        """Previews are overwritten by the next and end with the task: one that is gone is no error."""
        try:
            preview = self.client.preview(task)
        except DaybreakError as error:
            show.say(f"the picture of step {event.data.get('step')} could not be had: {error}")
            return
        step = event.data.get("step")
        suffix = mimetypes.guess_extension(preview.content_type.split(";")[0]) or ".webp"
        file = folder / f"step-{step if isinstance(step, int) else 0:04d}{suffix}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            file.write_bytes(preview.content)
        except OSError as error:  # the disk may be full: that is no reason to lose sight of the task
            show.say(f"the picture of step {step} could not be kept: {file}: {error.strerror or error}")
