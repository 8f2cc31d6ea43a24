"""Reports as Markdown tables. A column that no row uses is left out."""

from __future__ import annotations

from verification.results.report import Report, Row

_HELD = {True: "yes", False: "**missed**", None: ""}


def number(value: float) -> str:
    """Three significant digits, thousands apart: 12,300 · 4.56 · 0."""
    if value == 0:
        return "0"
    if abs(value) >= 1000 or value == int(value):
        return f"{value:,.0f}"
    digits = f"{value:.3g}"
    return f"{float(digits):.12f}".rstrip("0").rstrip(".") if "e" in digits else digits


def markdown(report: Report) -> str:
    """The table, with what was run above and on what below it."""
    columns = {
        "what": [row.what for row in report.rows],
        "figure": [f"{number(row.value)} {row.unit}".strip() for row in report.rows],
        "min to max": [_spread(row) for row in report.rows],
        "floor": [_floor(row) for row in report.rows],
        "ratio": ["" if row.ratio is None else f"{row.ratio:.2f}" for row in report.rows],
        "target": [row.target for row in report.rows],
        "held": [_HELD[row.held] for row in report.rows],
        "note": [row.note for row in report.rows],
    }
    used = {name: cells for name, cells in columns.items() if any(cells)}
    lines = [report.about, "", _line(list(used)), _line(["---"] * len(used))]
    lines += [_line(list(cells)) for cells in zip(*used.values(), strict=True)]
    return "\n".join([*lines, "", f"<sub>{_where(report)}</sub>"])


def _spread(row: Row) -> str:
    return "" if row.spread is None else f"{number(row.spread[0])} to {number(row.spread[1])}"


def _floor(row: Row) -> str:
    if row.floor is None:
        return ""
    return f"{number(row.floor)} {row.unit}" + (f" ({row.floor_what})" if row.floor_what else "")


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _where(report: Report) -> str:
    known = {"date": report.date, **report.machine}
    if report.seed is not None:
        known["seed"] = str(report.seed)
    known |= {name: str(value) for name, value in report.extra.items()}
    return " · ".join(f"{name} {value}" for name, value in known.items())
