"""Renders reports as Markdown tables, for the readers of a page.

A table omits columns that no row uses, rows that are details, and the versions of most packages. The saved report has
these rows and versions. A baseline is described only in the first row that has it.
"""

from __future__ import annotations

from verification.results.report import Report, Row

_SHOWN = ("cpu", "cores", "memory", "system", "python", "commit")
"""The facts about the machine that the line below a table shows."""
_HIDDEN = ("busy",)
"""Extra values that only the saved report has."""
_HELD = {True: "yes", False: "**missed**", None: ""}


def number(value: float) -> str:
    """Format a number: 12,346 · 4.56 · 0. Fractions below 1,000 get three significant digits. Other numbers get no
    decimals."""
    if value == 0:
        return "0"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    digits = f"{value:.3g}"
    return f"{float(digits):.12f}".rstrip("0").rstrip(".") if "e" in digits else digits


def markdown(report: Report) -> str:
    """The table. Above it is the text about the run; below it, a line with the date, the machine and the seed."""
    rows = [row for row in report.rows if not row.detail]
    columns = {
        "what": [row.what for row in rows],
        "figure": [_figure(row) for row in rows],
        "min to max": [_spread(row) for row in rows],
        "baseline": _baselines(rows),
        "ratio": ["" if row.ratio is None else f"{row.ratio:.2f}" for row in rows],
        "target": [row.target for row in rows],
        "met": [_HELD[row.held] for row in rows],
        "note": [row.note for row in rows],
    }
    used = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [report.about, "", _line(list(used)), _line(["---"] * len(used))]
    lines += [_line(list(cells)) for cells in zip(*used.values(), strict=True)]
    return "\n".join([*lines, "", f"<sub>{_where(report)}</sub>"])


def _figure(row: Row) -> str:
    """``3 tasks``, ``1 task``, ``1.5 s``."""
    is_plural = row.unit.isalpha() and len(row.unit) > 3 and row.unit.endswith("s")
    unit = row.unit[:-1] if is_plural and row.value == 1 else row.unit
    return f"{number(row.value)} {unit}".strip()


def _spread(row: Row) -> str:
    return "" if row.spread is None else f"{number(row.spread[0])} to {number(row.spread[1])}"


def _baselines(rows: list[Row]) -> list[str]:
    described: set[str] = {""}
    cells = []
    for row in rows:
        if row.baseline is None:
            cells.append("")
            continue
        what = "" if row.baseline_what in described else f" ({row.baseline_what})"
        described.add(row.baseline_what)
        cells.append(f"{number(row.baseline)} {row.unit}{what}")
    return cells


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _where(report: Report) -> str:
    known = {"date": report.date} | {name: report.machine[name] for name in _SHOWN if name in report.machine}
    if report.seed is not None:
        known["seed"] = str(report.seed)
    known |= {name: str(value) for name, value in report.extra.items() if name not in _HIDDEN}
    hidden = sum(row.detail for row in report.rows)
    rows = "row is" if hidden == 1 else "rows are"
    omitted = [f"{hidden} more {rows} in `docs/figures/{report.name}.json`"] if hidden else []
    return " · ".join([*(f"{name} {value}" for name, value in known.items()), *omitted])
