"""``daybreak trace``: where the time of a task went."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from daybreak.cli import waterfall
from daybreak.cli.exit_codes import report_errors
from daybreak.cli.global_options import global_options
from daybreak.cli.options import JsonOption, TaskId
from daybreak.cli.output import Output, seconds
from daybreak.cli.waterfall import MIN_BAR, Row
from daybreak.core.task_trace import TaskTrace, trace_of
from daybreak.core.trace_json import to_json


def trace(context: typer.Context, task_id: TaskId, as_json: JsonOption = False) -> None:
    """Show where the time of a task went: queue, wake, attempts and their phases, GPU time.

    On a terminal, the output is a waterfall chart. Elsewhere, the output is one line for each part of the time:
    start and duration in seconds, name, remarks.

    Examples:

    $ daybreak trace video_01JD…

    $ daybreak trace video_01JD… --json | jq '.parts[] | select(.kind == "attempt") | .outcome'
    """
    output = Output(as_json=as_json)
    with report_errors(output), global_options(context).client() as client:
        task = client.get(task_id)
        traced = trace_of(task, client.history(task))
    if as_json:
        output.json(to_json(traced))
        return
    rows = list(waterfall.rows(traced))
    if output.on_terminal:
        _draw(output, traced, rows)
    else:
        output.table(("start", "seconds", "part", "remarks"), [_cells(row) for row in rows])
    if traced.reason is not None:
        output.note(f"{traced.state.value}: {traced.reason}", style="red")
    if traced.trimmed:
        output.note(
            "The first events of this task were deleted, because its history is limited. The rest is complete.",
            style="dim",
        )


def _cells(row: Row) -> tuple[str, ...]:
    return (f"{row.start_ms / 1000:.3f}", f"{row.seconds:.3f}", "  " * row.depth + row.label, row.note)


def _draw(output: Output, traced: TaskTrace, rows: Sequence[Row]) -> None:
    output.line(waterfall.headline(traced))
    names = ["  " * row.depth + row.label for row in rows]
    took = [seconds(row.seconds) for row in rows]
    name_width = max(map(len, names), default=0)
    took_width = max(map(len, took), default=0)
    width = max(MIN_BAR, min(60, output.width - name_width - took_width - 4))
    for row, name, duration in zip(rows, names, took, strict=True):
        offset, length = waterfall.bar(row, total_ms=traced.total_ms, width=width)
        block = "█" if row.depth == 0 else "▒"
        drawn = " " * offset + block * length + " " * (width - offset - length)
        note = f"  {row.note}" if row.note else ""
        output.styled(
            (f"{name:<{name_width}}  ", ""),
            (drawn, row.style),
            (f"  {duration:>{took_width}}", ""),
            (note, "dim"),
        )
