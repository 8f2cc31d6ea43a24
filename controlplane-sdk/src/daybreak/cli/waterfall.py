"""The lines and bars in which ``daybreak trace`` shows a task's time. The command itself prints them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from daybreak.cli.output import seconds, size
from daybreak.cli.timeline import REASONS, phase_label, ranks
from daybreak.core import task_trace
from daybreak.core.task_trace import Part, PartKind, Piece, TaskTrace

WORDS = {
    task_trace.QUEUE: "in the queue",
    task_trace.DELAY: "waiting for its start time",
    task_trace.BACKOFF: "pausing before the next attempt",
    task_trace.START: "starting",
    task_trace.SILENT: "no sign of work",
    PartKind.UNKNOWN.value: "events deleted",
}
STYLES = {
    PartKind.WAIT: "yellow",
    PartKind.ATTEMPT: "green",
    PartKind.UNKNOWN: "dim",
}
WAKE_STYLE, FAILED_STYLE = "cyan", "red"
_ENDED_WELL = frozenset({"succeeded", task_trace.RUNNING, "released"})
MIN_BAR = 10
"""The least width of the bars, in columns. If the terminal has no room for such bars, the lines wrap."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the waterfall. Times are milliseconds since the submit."""

    label: str
    start_ms: int
    end_ms: int
    note: str
    style: str
    depth: int

    @property
    def seconds(self) -> float:
        """The duration in seconds."""
        return (self.end_ms - self.start_ms) / 1000


def headline(trace: TaskTrace) -> str:
    """One line about the task: state, duration, attempts and GPU time."""
    facts = [trace.state.value, seconds(trace.total_ms / 1000)]
    attempts = sum(part.kind is PartKind.ATTEMPT for part in trace.parts)
    facts.append(f"{attempts} attempt" if attempts == 1 else f"{attempts} attempts")
    if trace.usage is not None:
        used, wasted = trace.usage.gpu_seconds, trace.usage.wasted_gpu_seconds
        facts.append(f"{used:.1f} GPU-seconds used, {wasted:.1f} wasted")
    return f"{trace.task}  " + " · ".join(facts)


def rows(trace: TaskTrace) -> Iterator[Row]:
    """The rows of the waterfall: one for each part, followed by those of the part's pieces."""
    for part in trace.parts:
        style = FAILED_STYLE if _failed(part) else STYLES[part.kind]
        yield Row(
            label=_label(part),
            start_ms=part.start_ms,
            end_ms=part.end_ms,
            note=_note(part),
            style=style,
            depth=0,
        )
        for piece in part.pieces:
            if len(part.pieces) == 1 and part.kind is not PartKind.ATTEMPT and not piece.wake:
                continue  # the row of the part already shows this piece
            yield Row(
                label=_words(piece),
                start_ms=piece.start_ms,
                end_ms=piece.end_ms,
                note=_steps(piece),
                style=WAKE_STYLE if piece.wake else style,
                depth=1,
            )


def bar(row: Row, *, total_ms: int, width: int) -> tuple[int, int]:
    """The columns of a row's bar: its offset and its length, which is at least 1."""
    if total_ms <= 0:
        return 0, 1
    start = min(width - 1, row.start_ms * width // total_ms)
    end = min(width, -(-row.end_ms * width // total_ms))
    return start, max(1, end - start)


def _failed(part: Part) -> bool:
    return part.kind is PartKind.ATTEMPT and part.outcome not in _ENDED_WELL


def _label(part: Part) -> str:
    if part.kind is PartKind.ATTEMPT:
        return f"attempt {part.attempt or '?'}"
    if part.kind is PartKind.UNKNOWN:
        return WORDS[PartKind.UNKNOWN.value]
    if part.start_ms == 0:
        return "queued"
    return "waiting to retry"


def _note(part: Part) -> str:
    if part.kind is not PartKind.ATTEMPT:
        return _words(part.pieces[0]) if len(part.pieces) == 1 and part.start_ms else ""
    facts = [part.group or "a group"]
    if part.ranks is not None:
        facts[0] += f" ({ranks(part.ranks)})"
    if part.resumed_from_step:
        facts.append(f"resumed after step {part.resumed_from_step}")
    if part.checkpoints:
        facts.append(f"checkpoint after step {part.checkpoints[-1]}")
    if part.uploads:
        facts.append("stored " + ", ".join(f"{name} ({size(length)})" for name, length in part.uploads))
    if part.gpu_seconds is not None:
        facts.append(f"{part.gpu_seconds:.1f} GPU-seconds")
    end = REASONS.get(part.outcome or "", part.outcome or "its end is unknown")
    facts.append(f"{end}: {part.message}" if part.message else end)
    return ", ".join(facts)


def _words(piece: Piece) -> str:
    return WORDS.get(piece.name) or phase_label(piece.name)


def _steps(piece: Piece) -> str:
    if piece.first_step is None:
        return ""
    total = f" of {piece.steps}" if piece.steps else ""
    if piece.first_step == piece.last_step:
        return f"step {piece.last_step}{total}"
    return f"steps {piece.first_step}–{piece.last_step}{total}"
