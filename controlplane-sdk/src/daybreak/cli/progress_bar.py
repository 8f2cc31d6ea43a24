"""Showing a story on stderr: one bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from daybreak.cli.escaping import visible
from daybreak.cli.timeline import Story

PLAIN_STEP = 0.1
"""Without a terminal, progress is told when another tenth is done."""


class Show(Protocol):
    """Something that shows where a task is."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, story: Story) -> None:
        """Show where it is now."""

    def say(self, text: str) -> None:
        """A line that stays."""


class Bar:
    """One bar through queue, wake and work."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[percent]:>4}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task: TaskID = self._progress.add_task("handed in", total=None, percent="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, story: Story) -> None:
        """Move the bar; it pulses while there is no fraction."""
        known = story.fraction is not None
        self._progress.update(
            self._task,
            total=1.0 if known else None,
            completed=story.fraction or 0.0,
            description=visible(story.line),
            percent=f"{story.fraction:.0%}" if story.fraction is not None else "",
            refresh=story.state.terminal,
        )

    def say(self, text: str) -> None:
        """A line above the bar."""
        self._progress.console.print(Text(visible(text), style="dim"))


class Plain:
    """Lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._label = ""
        self._fraction = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, story: Story) -> None:
        """A line when the phase is another, or another tenth is done."""
        fraction = story.fraction or 0.0
        if story.label == self._label and abs(fraction - self._fraction) < PLAIN_STEP:
            return
        self._label, self._fraction = story.label, fraction
        percent = f"{fraction:4.0%} " if story.fraction is not None else ""
        self.say(f"{percent}{story.line}")

    def say(self, text: str) -> None:
        """A line."""
        self._console.print(Text(visible(text)))


def show_on(console: Console) -> Show:
    """What fits the console: a bar needs one that can move its cursor, whatever FORCE_COLOR says."""
    movable = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
    return Bar(console) if movable else Plain(console)
