"""Draws the median lag over the throughput, with a panel for each scene and a line for each strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 480, 330, 62, 40, 18, 46
ROW = 18
"""The height of a row of the legend."""
COLORS = ("#4b5563", "#ea580c", "#9333ea", "#059669", "#be185d", "#2563eb")
"""One color for each strategy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """A scene. Each line is the name of a strategy and its points: tokens per second, and the lag in milliseconds."""

    title: str
    lines: Sequence[tuple[str, Sequence[tuple[float, float]]]]


def draw(panels: Sequence[Panel], path: Path) -> Path:
    """Write the SVG. The lag has a logarithmic axis."""
    names = [name for name, _ in panels[0].lines]
    width = WIDTH * len(panels)
    legend, rows = _legend(names, width)
    height = HEIGHT + 12 + ROW * rows
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for number, panel in enumerate(panels):
        parts.append(f'<g transform="translate({number * WIDTH} 0)">{"".join(_panel(panel))}</g>')
    path.write_text("\n".join([*parts, *legend, "</svg>"]) + "\n")
    return path


def _legend(names: Sequence[str], width: float) -> tuple[list[str], int]:
    """The legend, and how many rows it has. A name that does not fit begins the next row."""
    parts: list[str] = []
    x, row = float(LEFT), 0
    for name, color in zip(names, COLORS[: len(names)], strict=True):
        needed = 36 + 5.6 * len(name)
        if x > LEFT and x + needed > width:
            x, row = float(LEFT), row + 1
        y = HEIGHT + 10 + ROW * row
        parts.append(f'<path d="M{x:.0f} {y}h18" stroke="{color}" stroke-width="2.5"/>')
        parts.append(f'<text x="{x + 23:.0f}" y="{y + 4}">{escape(name.replace("`", ""))}</text>')
        x += needed
    return parts, row + 1


def _panel(panel: Panel) -> list[str]:
    points = [point for _, line in panel.lines for point in line]
    most = max(x for x, _ in points) * 1.03
    low = 10 ** math.floor(math.log10(min(y for _, y in points)))
    high = 10 ** math.ceil(math.log10(max(y for _, y in points)))

    def across(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * value / most

    def up(value: float) -> float:
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(value / low) / math.log(high / low)

    parts = [f'<text x="{LEFT}" y="22" font-size="13">{escape(panel.title)}</text>']
    for power in range(round(math.log10(low)), round(math.log10(high)) + 1):
        at = up(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#e5e7eb"/>')
        parts.append(f'<text x="{LEFT - 6}" y="{at + 4:.1f}" text-anchor="end">{10**power:,} ms</text>')
    step = 10 ** math.floor(math.log10(most))
    step = step if most / step >= 3 else step / 2
    for number in range(int(most / step) + 1):
        parts.append(
            f'<text x="{across(number * step):.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">'
            f"{number * step:,.0f}</text>"
        )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 10}" text-anchor="middle">'
        "throughput, tokens per second (upwards: median lag of a turn)</text>"
    )
    for (_, line), color in zip(panel.lines, COLORS[: len(panel.lines)], strict=True):
        if not line:
            continue
        dots = [(across(x), up(y)) for x, y in line]
        way = "L".join(f"{x:.1f} {y:.1f}" for x, y in dots)
        parts.append(f'<path d="M{way}" fill="none" stroke="{color}" stroke-width="1.8"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" fill="{color}"/>' for x, y in dots]
    return parts
