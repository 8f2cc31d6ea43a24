"""Shows a task's timeline on stderr: as a bar on a terminal, else as single lines."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

from daybreak.cli.escaping import visible
from daybreak.cli.timeline import Timeline

PLAIN_INTERVAL = 0.1
"""Without a terminal, a line is printed whenever another tenth of the work is done."""


class ProgressView(Protocol):
    """Shows the progress of a task."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def update(self, timeline: Timeline) -> None:
        """Show the current state."""

    def log(self, text: str) -> None:
        """Print a line that stays on the screen."""


class ProgressBar:
    """A bar for the whole life of a task: the queue, the wake and the work."""

    def __init__(self, console: Console) -> None:
        self._progress = Progress(
            SpinnerColumn("dots" if console.encoding.startswith("utf") else "line"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[percent]:>4}"),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
        )
        self._task: TaskID = self._progress.add_task("submitted", total=None, percent="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, timeline: Timeline) -> None:
        """Move the bar. It pulses while the fraction is unknown."""
        known = timeline.fraction is not None
        self._progress.update(
            self._task,
            total=1.0 if known else None,
            completed=timeline.fraction or 0.0,
            description=visible(timeline.line),
            percent=f"{timeline.fraction:.0%}" if timeline.fraction is not None else "",
            refresh=timeline.state.terminal,
        )

    def log(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(Text(visible(text), style="dim"))


class PlainLines:
    """Single lines, for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._label = ""
        self._fraction = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def update(self, timeline: Timeline) -> None:
        """Print a line when the phase changes or another tenth is done."""
        fraction = timeline.fraction or 0.0
        if timeline.label == self._label and abs(fraction - self._fraction) < PLAIN_INTERVAL:
            return
        self._label, self._fraction = timeline.label, fraction
        percent = f"{fraction:4.0%} " if timeline.fraction is not None else ""
        self.log(f"{percent}{timeline.line}")

    def log(self, text: str) -> None:
        """Print a line."""
        self._console.print(Text(visible(text)))


def progress_view(console: Console) -> ProgressView:
    """A bar if the console is a terminal that can move its cursor, else plain lines.

    The variable FORCE_COLOR does not affect this choice.
    """
    movable = console.is_terminal and not console.is_dumb_terminal and console.file.isatty()
    return ProgressBar(console) if movable else PlainLines(console)
