"""Draws the inside of a panel: lines, areas, bars, numbers, a table or a timeline, and its legend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

from dashboards.model import Kind

HEIGHT = {
    Kind.LINES: 150,
    Kind.AREAS: 150,
    Kind.BARS: 34,
    Kind.NUMBER: 70,
    Kind.TABLE: 52,
    Kind.TIMELINE: 48,
}
"""The height of a panel without its legend and, for kinds that have rows, without the rows."""
_LEFT, _TOP, _RIGHT, _AXIS = 46, 32, 12, 16
_LINE = 14
_CHARACTER = 5.9
"""The approximate width of a character."""
SHARE = "share"
"""The unit of ratios. A panel of the kind ``NUMBER`` shows ratios in percent."""
_PALETTE = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626", "#ca8a04", "#0891b2", "#db2777", "#4b5563")
_MOST_LINES = 9
_INK, _PALE = "#374151", "#6b7280"


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A name, and values by seconds since the run began. Without a ``color``, the palette gives one."""

    name: str
    points: Sequence[tuple[float, float]]
    color: str = ""

    @property
    def last(self) -> float:
        """The last value."""
        return self.points[-1][1]

    @property
    def highest(self) -> float:
        """The highest value."""
        return max(value for _, value in self.points)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A panel: its title, its kind, and its data."""

    title: str
    kind: Kind
    columns: int
    """The panel's width in columns. A dashboard has 24 columns."""
    series: Sequence[Series] = ()
    table: Sequence[Mapping[str, str]] = field(default=())
    """The rows of a table. Each row maps the titles of the columns to its cells."""
    unit: str = ""
    until: float = 0.0
    """The end of the run, on the time axis."""
    note: str = ""

    @property
    def shown(self) -> list[Series]:
        """The series that are drawn. Lines and areas that are never above 0 are left out. If none is ever above 0,
        the first one is drawn. Of more than ``_MOST_LINES`` lines, only the highest are drawn."""
        found = [series for series in self.series if series.points]
        if self.kind in {Kind.LINES, Kind.AREAS} and len(found) > 1:
            found = [series for series in found if series.highest > 0] or found[:1]
        if self.kind is Kind.LINES and len(found) > _MOST_LINES:
            found = sorted(found, key=lambda series: -series.highest)[:_MOST_LINES]
        return [_colored(series, number) for number, series in enumerate(found)]

    @property
    def entries(self) -> list[tuple[str, str]]:
        """The legend: names and colours."""
        if self.kind not in {Kind.LINES, Kind.AREAS}:
            return []
        entries = [(series.name, series.color) for series in self.shown]
        hidden = sum(bool(series.points) for series in self.series) - len(entries)
        if self.kind is Kind.LINES and len(entries) == _MOST_LINES and hidden:
            entries.append((f"(the lowest {hidden} not drawn)", "none"))
        return entries


def _colored(series: Series, number: int) -> Series:
    color = series.color or _PALETTE[number % len(_PALETTE)]
    return Series(name=series.name, points=series.points, color=color)


def legend_height(plot: Plot, width: float) -> float:
    """The height of the legend, or of the rows if panels of this kind have rows."""
    rows = {Kind.TABLE: len(plot.table), Kind.TIMELINE: len(plot.shown), Kind.BARS: len(plot.shown)}
    if plot.kind in rows:
        return rows[plot.kind] * 20.0
    if plot.kind is Kind.NUMBER:
        return 20.0 * max(0, len(plot.shown) - 1)
    return _LINE * len(_legend_lines(plot, width)) + 4.0


def body(plot: Plot, width: float, height: float, marks: Sequence[tuple[float, str]]) -> str:
    """The content of the panel below its title."""
    match plot.kind:
        case Kind.TABLE:
            return _table(plot, width)
        case Kind.NUMBER:
            return _numbers(plot)
        case Kind.BARS:
            return _bars(plot, width)
        case Kind.TIMELINE:
            return _timeline(plot, width, marks)
        case _:
            return _lines(plot, width, height, marks) + _legend(plot, width, height)


# ── kinds without a time axis ─────────────────────────────────────────────────────────────────────────────


def _table(plot: Plot, width: float) -> str:
    columns = list(plot.table[0]) if plot.table else []
    step = (width - 20) / max(1, len(columns))
    parts = []
    for number, row in enumerate([dict(zip(columns, columns, strict=True)), *plot.table]):
        y = _TOP + 10 + number * 20
        fill = _PALE if number == 0 else _INK
        for index, column in enumerate(columns):
            parts.append(_text(10 + index * step, y, row.get(column, ""), fill=fill))
    return "".join(parts)


def _numbers(plot: Plot) -> str:
    parts = []
    for number, series in enumerate(plot.shown):
        name = f" {series.name}" if len(plot.shown) > 1 or not plot.unit else ""
        value = (
            f"{100 * series.last:.3g} %"
            if plot.unit == SHARE
            else f"{short(series.last)} {plot.unit}".strip()
        )
        parts.append(
            f'<text x="10" y="{50 + 22 * number}" fill="{_INK}"><tspan font-size="20">{escape(value)}</tspan>'
            f"<tspan>{escape(name)}</tspan></text>"
        )
    return "".join(parts)


def _bars(plot: Plot, width: float) -> str:
    largest = max((series.last for series in plot.shown), default=1.0) or 1.0
    names = 16 + _CHARACTER * max((len(series.name) for series in plot.shown), default=0)
    room = width - names - 90
    parts = []
    for number, series in enumerate(plot.shown):
        y, length = _TOP + number * 20, room * series.last / largest
        parts.append(_text(names - 6, y + 11, series.name, anchor="end"))
        parts.append(
            f'<rect x="{names:.1f}" y="{y}" width="{length:.1f}" height="14" fill="{series.color}"/>'
        )
        parts.append(_text(names + length + 5, y + 11, f"{short(series.last)} {plot.unit}"))
    return "".join(parts)


# ── kinds with a time axis ────────────────────────────────────────────────────────────────────────────────


def _timeline(plot: Plot, width: float, marks: Sequence[tuple[float, str]]) -> str:
    names = 16 + _CHARACTER * max((len(series.name) for series in plot.shown), default=0)
    inner = width - names - _RIGHT
    bottom = _TOP + 20 * len(plot.shown)
    parts = [_axis(plot.until, marks, left=names, inner=inner, top=_TOP, bottom=bottom)]
    for number, series in enumerate(plot.shown):
        y = _TOP + 20 * number
        parts.append(_text(names - 6, y + 12, series.name, anchor="end"))
        for begin, end in _spans([at for at, _ in series.points]):
            x, length = names + inner * begin / plot.until, inner * max(1.0, end - begin) / plot.until
            parts.append(
                f'<rect x="{x:.1f}" y="{y + 1}" width="{length:.1f}" height="16" fill="{series.color}"/>'
            )
    return "".join(parts)


def _spans(times: Sequence[float]) -> list[tuple[float, float]]:
    """The intervals in which each time follows the previous one within two seconds."""
    spans: list[tuple[float, float]] = []
    for at in times:
        if spans and at - spans[-1][1] <= 2:
            spans[-1] = (spans[-1][0], at)
        else:
            spans.append((at, at))
    return spans


def _lines(plot: Plot, width: float, height: float, marks: Sequence[tuple[float, str]]) -> str:
    series = _stacked(plot.shown) if plot.kind is Kind.AREAS else plot.shown
    top = round_up(1.05 * max((line.highest for line in series), default=0.0))
    bottom = height - legend_height(plot, width) - _AXIS - 6
    inner_width, inner_height = width - _LEFT - _RIGHT, bottom - _TOP

    def place(at: float, value: float) -> str:
        return f"{_LEFT + inner_width * at / plot.until:.1f} {_TOP + inner_height * (1 - value / top):.1f}"

    parts = []
    for part in (0.0, 0.5, 1.0):
        y = _TOP + inner_height * (1 - part)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{inner_width:.1f}" stroke="#e5e7eb"/>')
        parts.append(_text(_LEFT - 5, y + 3, short(part * top), anchor="end", fill=_PALE))
    for line in reversed(series):
        for points in _pieces(line.points):
            way = "M" + "L".join(place(at, value) for at, value in points)
            if plot.kind is Kind.AREAS:
                close = f"L{place(points[-1][0], 0)}L{place(points[0][0], 0)}Z"
                parts.append(f'<path d="{way}{close}" fill="{line.color}"/>')
            else:
                parts.append(f'<path d="{way}" fill="none" stroke="{line.color}" stroke-width="1.6"/>')
    parts.append(_axis(plot.until, marks, left=_LEFT, inner=inner_width, top=_TOP, bottom=bottom))
    return "".join(parts)


def _pieces(points: Sequence[tuple[float, float]]) -> list[list[tuple[float, float]]]:
    """The points, divided at gaps of more than five seconds."""
    pieces: list[list[tuple[float, float]]] = []
    for point in points:
        if pieces and point[0] - pieces[-1][-1][0] <= 5:
            pieces[-1].append(point)
        else:
            pieces.append([point])
    return pieces


def _axis(
    until: float, marks: Sequence[tuple[float, str]], *, left: float, inner: float, top: float, bottom: float
) -> str:
    """The time axis: the times at its ends, and for each mark a dotted line with a letter above the line."""
    parts = [
        _text(left, bottom + 12, "0", fill=_PALE),
        _text(left + inner, bottom + 12, f"{until:.0f} s", anchor="end", fill=_PALE),
    ]
    free = 0.0
    for at, letter in marks:
        x = left + inner * at / until
        free = max(x, free + 8)  # letters of marks that are close stand side by side
        parts.append(f'<path d="M{x:.1f} {top}V{bottom:.1f}" stroke="#9ca3af" stroke-dasharray="2 3"/>')
        parts.append(_text(free, top - 3, letter, anchor="middle"))
    return "".join(parts)


def _stacked(series: Sequence[Series]) -> list[Series]:
    """Each series on top of those before it."""
    below: dict[float, float] = {}
    result = []
    for line in series:
        for at, value in line.points:
            below[at] = below.get(at, 0.0) + value
        result.append(
            Series(name=line.name, color=line.color, points=[(at, below[at]) for at, _ in line.points])
        )
    return result


# ── legends and numbers ───────────────────────────────────────────────────────────────────────────────────


def _legend_lines(plot: Plot, width: float) -> list[list[tuple[str, str]]]:
    """The entries of the legend, divided into lines that fit into the width."""
    lines: list[list[tuple[str, str]]] = [[]]
    used = 10.0
    for name, color in plot.entries:
        needed = 24 + _CHARACTER * len(name)
        if lines[-1] and used + needed > width - 10:
            lines.append([])
            used = 10.0
        lines[-1].append((name, color))
        used += needed
    return [line for line in lines if line]


def _legend(plot: Plot, width: float, height: float) -> str:
    parts = []
    lines = _legend_lines(plot, width)
    for number, line in enumerate(lines):
        x, y = 10.0, height - 8 - _LINE * (len(lines) - 1 - number)
        for name, color in line:
            parts.append(f'<rect x="{x:.1f}" y="{y - 7.5:.1f}" width="8" height="8" fill="{color}"/>')
            parts.append(_text(x + 12, y, name))
            x += 24 + _CHARACTER * len(name)
    return "".join(parts)


def _text(x: float, y: float, text: str, *, anchor: str = "start", fill: str = _INK) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{fill}">{escape(text)}</text>'


def round_up(value: float) -> float:
    """The smallest round number (such as 1.2, 2, 5 or 10) that is not below the value."""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(
        next(
            step * power for step in (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8, 10) if step * power >= value * (1 - 1e-9)
        )
    )


def short(value: float) -> str:
    """The number with three significant digits."""
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}" if value >= 1e-4 or value <= 0 else f"{value:.1e}"
