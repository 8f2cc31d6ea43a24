"""Draws panels of a dashboard as one SVG, without a plotting library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

COLUMNS, WIDTH, HEIGHT, GAP = 3, 330, 190, 14
_LEFT, _TOP, _RIGHT, _BOTTOM = 46, 30, 10, 48
_COLORS = ("#2563eb", "#ea580c", "#059669", "#9333ea", "#dc2626", "#ca8a04", "#0891b2", "#db2777")
_SHOWN = 4
"""Series in a legend."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """A name, and values by seconds since the run began."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plot:
    """A panel: its title with unit, its series, and whether to stack them or to show the last values as bars."""

    title: str
    series: Sequence[Series]
    stacked: bool = False
    bars: bool = False


def draw(title: str, plots: Sequence[Plot]) -> str:
    """The SVG."""
    rows = math.ceil(len(plots) / COLUMNS)
    width = COLUMNS * (WIDTH + GAP) + GAP
    height = rows * (HEIGHT + GAP) + GAP + 28
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="10">',
        f'<rect width="{width}" height="{height}" fill="#f3f4f6"/>',
        f'<text x="{GAP}" y="22" font-size="15" fill="#111">{escape(title)}</text>',
    ]
    for number, plot in enumerate(plots):
        row, column = divmod(number, COLUMNS)
        x, y = GAP + column * (WIDTH + GAP), 28 + GAP + row * (HEIGHT + GAP)
        parts.append(f'<g transform="translate({x} {y})">{_panel(plot)}</g>')
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(plot: Plot) -> str:
    frame = (
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white" stroke="#d1d5db"/>'
        f'<text x="10" y="18" font-size="12" fill="#111">{escape(plot.title)}</text>'
    )
    return frame + (_bars(plot) if plot.bars else _lines(plot))


def _bars(plot: Plot) -> str:
    last = [(series.name, series.points[-1][1]) for series in plot.series if series.points]
    largest = max((value for _, value in last), default=1.0) or 1.0
    parts = []
    for number, (name, value) in enumerate(last[:8]):
        y = _TOP + 4 + number * 19
        parts.append(
            f'<rect x="130" y="{y}" width="{150 * value / largest:.1f}" height="13" fill="{_COLORS[0]}"/>'
            f'<text x="124" y="{y + 10}" text-anchor="end" fill="#374151">{escape(name[:24])}</text>'
            f'<text x="{134 + 150 * value / largest:.1f}" y="{y + 10}" fill="#374151">{_short(value)}</text>'
        )
    return "".join(parts)


def _lines(plot: Plot) -> str:
    series = _stacked(plot.series) if plot.stacked else list(plot.series)
    every = [point for line in series for point in line.points]
    first, last = min(at for at, _ in every), max(at for at, _ in every)
    top = _round_up(max(value for _, value in every))
    inner_width, inner_height = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def place(at: float, value: float) -> str:
        x = _LEFT + inner_width * (at - first) / ((last - first) or 1)
        return f"{x:.1f} {_TOP + inner_height * (1 - value / top):.1f}"

    parts = []
    for part in (0.0, 0.5, 1.0):
        y = _TOP + inner_height * (1 - part)
        parts.append(f'<path d="M{_LEFT} {y:.1f}h{inner_width}" stroke="#e5e7eb"/>')
        parts.append(
            f'<text x="{_LEFT - 5}" y="{y + 3:.1f}" text-anchor="end" fill="#6b7280">{_short(part * top)}</text>'
        )
    for at, anchor in ((first, "start"), (last, "end")):
        x = place(at, 0).split()[0]
        parts.append(
            f'<text x="{x}" y="{HEIGHT - _BOTTOM + 12}" text-anchor="{anchor}" fill="#6b7280">{at:.0f} s</text>'
        )
    for number, line in reversed(list(enumerate(series))):
        if not line.points:
            continue
        color = _COLORS[number % len(_COLORS)]
        way = "M" + "L".join(place(at, value) for at, value in line.points)
        if plot.stacked:
            close = f"L{place(line.points[-1][0], 0)}L{place(line.points[0][0], 0)}Z"
            parts.append(f'<path d="{way}{close}" fill="{color}"/>')
        else:
            parts.append(f'<path d="{way}" fill="none" stroke="{color}" stroke-width="1.5"/>')
    return "".join([*parts, _legend(series)])


def _legend(series: Sequence[Series]) -> str:
    parts = []
    for number, line in enumerate(series[:_SHOWN]):
        x, y = 10 + (number % 2) * (WIDTH // 2), HEIGHT - 20 + (number // 2) * 13
        parts.append(f'<rect x="{x}" y="{y - 7}" width="8" height="8" fill="{_COLORS[number]}"/>')
        parts.append(f'<text x="{x + 12}" y="{y}" fill="#374151">{escape(line.name[:27])}</text>')
    return "".join(parts)


def _stacked(series: Sequence[Series]) -> list[Series]:
    """Each series on top of those before it."""
    below: dict[float, float] = {}
    result = []
    for line in series:
        for at, value in line.points:
            below[at] = below.get(at, 0.0) + value
        result.append(Series(name=line.name, points=[(at, below[at]) for at, _ in line.points]))
    return result


def _round_up(value: float) -> float:
    """The next number of the kind 1, 2, 5, 10 …"""
    if value <= 0:
        return 1.0
    power = 10 ** math.floor(math.log10(value))
    return float(next(step * power for step in (1, 2, 5, 10) if step * power >= value))


def _short(value: float) -> str:
    for limit, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{suffix}"
    return f"{value:.3g}"
