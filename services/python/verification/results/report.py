"""A report of a run, with its rows and its machine. It can be saved as JSON and loaded again."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from verification.results.machine import machine

FOLDER = Path(__file__).resolve().parents[4] / "docs" / "figures"
"""The folder of saved reports."""

_TIMES = frozenset({"s", "ms", "µs", "× lease"})


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. Its ``baseline`` comes from the same run and has the same unit."""

    what: str
    value: float
    unit: str
    baseline: float | None = None
    baseline_what: str = ""
    target: str = ""
    held: bool | None = None
    """Whether the target was met; ``None`` without a target."""
    spread: tuple[float, float] | None = None
    """The smallest and the largest of the measured values."""
    note: str = ""
    detail: bool = False
    """A detail is saved but not shown in the table."""

    @property
    def ratio(self) -> float | None:
        """The figure divided by its baseline."""
        return self.value / self.baseline if self.baseline else None

    @property
    def broken(self) -> bool:
        """Whether a promise was broken. A time that misses its target does not break a promise."""
        return self.held is False and self.unit not in _TIMES


@dataclass(slots=True)
class Report:
    """The rows of one run; ``save`` writes them with the machine, the versions and the commit."""

    name: str
    title: str
    about: str
    seed: int | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    rows: list[Row] = field(default_factory=list)
    machine: dict[str, str] = field(default_factory=machine)
    date: str = field(default_factory=lambda: time.strftime("%Y-%m-%d", time.gmtime()))

    def add(self, row: Row) -> Row:
        """Append a row and return it."""
        self.rows.append(row)
        return row

    @property
    def missed(self) -> list[Row]:
        """Rows whose target was not met."""
        return [row for row in self.rows if row.held is False]

    def save(self, folder: Path = FOLDER) -> Path:
        """Write ``<folder>/<name>.json`` atomically."""
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{self.name}.json"
        part = path.with_suffix(".part")
        part.write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False, default=str) + "\n")
        part.replace(path)
        return path

    def table(self) -> str:
        """The table as Markdown, for a page or a terminal."""
        from verification.results.table import markdown

        return markdown(self)


def load(path: Path) -> Report:
    """Load a report that ``save`` wrote."""
    stored = json.loads(path.read_text())
    rows = [
        Row(**{**row, "spread": tuple(row["spread"]) if row["spread"] else None})
        for row in stored.pop("rows")
    ]
    return Report(**stored, rows=rows)
