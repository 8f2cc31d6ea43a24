"""The output of a command. Results go to stdout, everything else to stderr. With ``--json``, stdout has only JSON."""

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
    """The output of one command."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.err = _Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        """Write one line of JSON to stdout."""
        _write(json_line(value, sys.stdout.encoding))

    def line(self, text: str = "") -> None:
        """Write a line of the result."""
        _write(visible(text))

    @property
    def on_terminal(self) -> bool:
        """Whether the result goes to a terminal."""
        return sys.stdout.isatty()

    @property
    def width(self) -> int:
        """The number of columns of the terminal."""
        return _Console().width

    def styled(self, *pieces: tuple[str, str]) -> None:
        """Write a line of the result to a terminal. Each piece is a text and its style."""
        line = Text()
        for text, style in pieces:
            line.append(visible(text), style=style)
        _Console(highlight=False, soft_wrap=True).print(line)

    def file(self, path: Path) -> None:
        """Write a file's path as a result: escaped on a terminal, and its exact bytes anywhere else."""
        if sys.stdout.isatty():
            self.line(str(path))
            return
        sys.stdout.flush()
        sys.stdout.buffer.write(os.fsencode(path) + b"\n")
        sys.stdout.buffer.flush()

    def note(self, text: str, *, style: str | None = None) -> None:
        """Write a line that is not part of the result."""
        self.err.print(Text(visible(text), style=style or ""))

    def error(self, text: str, *, hint: str | None = None, code: str) -> None:
        """Write what happened and what to do next (``hint``) to stderr; with ``--json`` as one object."""
        if self.as_json:
            body = {"error": {"code": code, "message": text} | ({"hint": hint} if hint else {})}
            sys.stderr.write(json_line(body, sys.stderr.encoding) + "\n")
            return
        line = Text("error: ", style="bold red").append(visible(text), style="default not bold")
        if hint:
            line.append(("" if text.endswith((".", "?", "!")) else ".") + f" {visible(hint)}", style="dim")
        self.err.print(line)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Write a table on a terminal, and tab-separated rows without a header otherwise."""
        # Not rich's `is_terminal`, which FORCE_COLOR sets: that variable asks for colours, not for another format.
        if not sys.stdout.isatty():
            for row in rows:
                _write("\t".join(visible(cell) for cell in row))
            return
        table = Table(box=None, header_style="bold", pad_edge=False)
        escaped = [[visible(cell) for cell in row] for row in rows]
        for number, column in enumerate(columns):
            # Users copy ids from the first column, so a narrow terminal truncates only the other columns.
            min_width = max((len(row[0]) for row in escaped), default=None) if number == 0 else None
            table.add_column(column, min_width=min_width)
        for row in escaped:
            table.add_row(*(Text(cell) for cell in row))
        _Console(highlight=False).print(table)


class _Console(Console):
    """A console that raises an error on a closed pipe. Rich's console would exit with 1, the code of a failed task."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        raise BrokenPipeError


def write_content(path: Path) -> None:
    """Write a file's bytes to stdout."""
    sys.stdout.flush()
    with path.open("rb") as file:
        shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def prepare_streams() -> None:
    """Make stdout and stderr accept any text.

    If one of them is closed, ``/dev/null`` takes its place. Stdout escapes characters that its encoding lacks.
    """
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115 - it stays open until the process ends
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - as above
    if sys.stdout.errors == "strict" and hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")


def abandon_streams() -> None:
    """Discard output that can no longer be written. Otherwise Python prints an error when it exits."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _discard(stream)


def _discard(stream: TextIO) -> None:
    with contextlib.suppress(OSError, ValueError):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def seconds(value: float | None) -> str:
    """``0.42 s``, ``12.3 s``, ``4 min 05 s``, ``2 h 03 min``; a dash if unknown."""
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
    """How long ago a time was, in one unit: ``5 min ago``."""
    elapsed = max(0.0, ((now or datetime.now(UTC)) - at).total_seconds())
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if elapsed >= length:
            return f"{elapsed / length:.0f} {unit} ago"
    return f"{elapsed:.0f} s ago"
