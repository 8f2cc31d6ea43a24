"""Draws panels of a dashboard, with the data of one run, as one SVG. It uses no plotting library.

The panels fill rows. In a row, their widths have the same proportions as on the dashboard.
Each row is as high as its highest panel, legend included. Letters above the graphs mark events of the run, such as a
kill. Lines at the bottom of the picture explain the letters.
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from html import escape

from verification.dashboards.plots import HEIGHT, Plot, body, legend_height

WIDTH, GAP, COLUMNS = 1080, 10, 24
_TITLE = 32


def draw(title: str, plots: Sequence[Plot], marks: Sequence[tuple[float, str]] = ()) -> str:
    """The SVG. ``marks`` are the times and names of the run's events; the first 26 get letters."""
    letters = [(at, letter) for (at, _), letter in zip(marks, string.ascii_lowercase, strict=False)]
    parts, y = [], float(_TITLE + GAP)
    for row in _rows(plots):
        height = max(_height(plot, width) for plot, width in row)
        x = float(GAP)
        for plot, width in row:
            parts.append(
                f'<g transform="translate({x:.1f} {y:.1f})">{_panel(plot, width, height, letters)}</g>'
            )
            x += width + GAP
        y += height + GAP
    for line in _caption(marks):
        parts.append(f'<text x="{GAP}" y="{y + 8:.1f}" fill="#374151">{escape(line)}</text>')
        y += 16
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y + GAP:.0f}" '
            'font-family="sans-serif" font-size="10.5">',
            f'<rect width="{WIDTH}" height="{y + GAP:.0f}" fill="#f3f4f6"/>',
            f'<text x="{GAP}" y="24" font-size="16" fill="#111">{escape(title)}</text>',
            *parts,
            "</svg>\n",
        ]
    )


def _rows(plots: Sequence[Plot]) -> list[list[tuple[Plot, float]]]:
    """The plots row by row, with their widths in pixels."""
    rows: list[list[Plot]] = [[]]
    for plot in plots:
        if rows[-1] and sum(each.columns for each in rows[-1]) + plot.columns > COLUMNS:
            rows.append([])
        rows[-1].append(plot)
    return [_widths(row) for row in rows]


def _widths(row: Sequence[Plot]) -> list[tuple[Plot, float]]:
    free = WIDTH - GAP * (len(row) + 1)
    columns = sum(plot.columns for plot in row)
    return [(plot, free * plot.columns / columns) for plot in row]


def _height(plot: Plot, width: float) -> float:
    return HEIGHT[plot.kind] + legend_height(plot, width) + (14 if plot.note else 0)


def _panel(plot: Plot, width: float, height: float, marks: Sequence[tuple[float, str]]) -> str:
    note = (
        f'<text x="10" y="{height - 6:.1f}" font-style="italic" fill="#6b7280">{escape(plot.note)}</text>'
        if plot.note
        else ""
    )
    return (
        f'<rect width="{width:.1f}" height="{height:.1f}" fill="white" stroke="#d1d5db"/>'
        f'<text x="10" y="18" font-size="12" fill="#111">{escape(plot.title)}</text>'
        f"{body(plot, width, height - (14 if plot.note else 0), marks)}{note}"
    )


def _caption(marks: Sequence[tuple[float, str]]) -> list[str]:
    """Lines of text that explain the marks, none wider than the picture."""
    lines: list[str] = []
    for (at, what), letter in zip(marks, string.ascii_lowercase, strict=False):
        entry = f"{letter}: {what} ({at:.0f} s)"
        if lines and len(lines[-1]) + len(entry) < 170:
            lines[-1] += f"   ·   {entry}"
        else:
            lines.append(entry)
    return lines
