"""Where words go: results to stdout, all else to stderr; with ``--json`` stdout has JSON and nothing else."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


class Output:
    """One command's voice."""

    def __init__(self, *, as_json: bool = False) -> None:
        self.as_json = as_json
        self.out = Console(highlight=False, soft_wrap=True)
        self.err = Console(stderr=True, highlight=False, soft_wrap=True)

    def json(self, value: Any) -> None:
        """One line of JSON on stdout."""
        sys.stdout.write(json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n")
        sys.stdout.flush()

    def line(self, text: str = "", *, style: str | None = None) -> None:
        """A line of the result."""
        self.out.print(Text(text, style=style or ""))

    def note(self, text: str, *, style: str | None = None) -> None:
        """A line that is not the result."""
        self.err.print(Text(text, style=style or ""))

    def error(self, text: str, *, hint: str | None = None, code: str) -> None:
        """What went wrong and what to do next; with ``--json`` as one object on stderr."""
        if self.as_json:
            body = {"error": {"code": code, "message": text} | ({"hint": hint} if hint else {})}
            sys.stderr.write(json.dumps(body, ensure_ascii=False) + "\n")
            return
        words = Text("error: ", style="bold red").append(text, style="default not bold")
        if hint:
            words.append(("" if text.endswith((".", "?", "!")) else ".") + f" {hint}", style="dim")
        self.err.print(words)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
        """Rows for eyes on a terminal, and tab-separated without a head for other programs."""
        if not self.out.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(row) + "\n")
            return
        table = Table(*columns, box=None, header_style="bold", pad_edge=False)
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))
        self.out.print(table, soft_wrap=False)


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
