"""Where words go: results to stdout, all else to stderr; with ``--json`` stdout has JSON and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from daybreak.cli.escaping import json_line, visible


class Output:
    """One command's voice."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.err = _Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        """One line of JSON on stdout."""
        _write(json_line(value, sys.stdout.encoding))

    def line(self, text: str = "") -> None:
        """A line of the result."""
        _write(visible(text))

    def file(self, path: Path) -> None:
        """A file's path as a result: byte by byte as it is in a pipe, escaped on a terminal."""
        if sys.stdout.isatty():
            self.line(str(path))
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.buffer.flush()

    def note(self, text: str, *, style: str | None = None) -> None:
        """A line that is not the result."""
        self.err.print(Text(visible(text), style=style or ""))

    def error(self, text: str, *, hint: str | None = None, code: str) -> None:
        """What went wrong and what to do next; with ``--json`` as one object on stderr."""
        if self.as_json:
            body = {"error": {"code": code, "message": text} | ({"hint": hint} if hint else {})}
            sys.stderr.write(json_line(body, sys.stderr.encoding) + "\n")
            return
        words = Text("error: ", style="bold red").append(visible(text), style="default not bold")
        if hint:
            words.append(("" if text.endswith((".", "?", "!")) else ".") + f" {visible(hint)}", style="dim")
        self.err.print(words)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows for eyes on a terminal, and tab-separated without a head for other programs."""
        # isatty, not is_terminal: FORCE_COLOR asks for colours, never for another shape.
        if not sys.stdout.isatty():
            for row in rows:
                _write("\t".join(visible(cell) for cell in row))
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        shown = [[visible(cell) for cell in row] for row in rows]
        for number, column in enumerate(columns):
            # The first column is what people copy: others are cut on a narrow terminal.
            least = max((len(row[0]) for row in shown), default=None) if number == 0 else None
            table.add_column(column, min_width=least)
        for row in shown:
            table.add_row(*(Text(cell) for cell in row))
        _Console(highlight=False).print(table)


class _Console(Console):
    """Leaves a closed pipe to the caller; its base would end the process with the code of a failed task."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


def write_content(path: Path) -> None:
    """A file's bytes on stdout."""
    sys.stdout.flush()
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def prepare_streams() -> None:
    """Make stdout fit for any text: what its encoding lacks is escaped, and a closed one is no error."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")
    if sys.stdout.errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def abandon_streams() -> None:
    """Drop what can no longer be written, or Python would complain of it when it ends."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _to_nowhere(stream)


def _to_nowhere(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def seconds(value: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``; a dash when unknown."""
    if value is None:
        return "–"
    if value < 1:
        return f"{value:.2f} s"
    if value < 60:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(value: int) -> str:
    """Bytes as ``831 B``, ``10.0 KiB``, ``3.2 MiB``."""
    amount = float(value)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def age(at: datetime, *, now: datetime | None = None) -> str:
    """How long ago, in one unit."""
    past = max(0.0, ((now or datetime.now(UTC)) - at).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if past >= length:
            return f"{past / length:.0f} {unit} ago"
    return f"{past:.0f} s ago"
