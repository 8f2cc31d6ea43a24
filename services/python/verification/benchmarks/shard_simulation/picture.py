"""Draws how long a task waits for its start, by the number of shards (pools with one Redis core each).

It needs no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WIDTH, HEIGHT, LEFT, TOP, RIGHT, BOTTOM = 720, 400, 70, 46, 24, 56
COLORS = ("#c2410c", "#1d4ed8", "#047857")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A series: its name, and its points (number of shards, milliseconds)."""

    name: str
    points: Sequence[tuple[int, float]]


def draw(lines: Sequence[Line], *, title: str, limit_ms: float, path: Path) -> Path:
    """Write the SVG. Both axes are logarithmic. A dashed line marks ``limit_ms``, the longest wait that is promised."""
    shards = sorted({x for line in lines for x, _ in line.points})
    low, high = 0.1, 10_000.0
    span = math.log(shards[-1] / shards[0]) or 1.0

    def x(value: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * math.log(value / shards[0]) / span

    def y(value: float) -> float:
        inside = min(max(value, low), high)
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * math.log(inside / low) / math.log(high / low)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{title}</text>',
    ]
    for power in range(-1, 5):
        at = y(10.0**power)
        parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(f'<text x="{LEFT - 8}" y="{at + 4:.1f}" text-anchor="end">{10.0**power:g} ms</text>')
    for value in shards:
        parts.append(
            f'<text x="{x(value):.1f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{value}</text>'
        )
    at = y(limit_ms)
    parts.append(f'<path d="M{LEFT} {at:.1f}H{WIDTH - RIGHT}" stroke="#555" stroke-dasharray="5 4"/>')
    parts.append(
        f'<text x="{WIDTH - RIGHT}" y="{at - 5:.1f}" text-anchor="end" fill="#555">{limit_ms:g} ms</text>'
    )
    parts.append(
        f'<text x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 14}" text-anchor="middle">'
        "shards (pools, one core each)</text>"
    )
    for index, line in enumerate(lines):
        color = COLORS[index % len(COLORS)]
        dots = [(x(number), y(value), value) for number, value in line.points]
        way = "M" + "L".join(f"{px:.1f} {py:.1f}" for px, py, _ in dots)
        parts.append(f'<path d="{way}" fill="none" stroke="{color}" stroke-width="2"/>')
        for px, py, value in dots:
            full = value < high
            parts.append(
                f'<circle cx="{px:.1f}" cy="{py:.1f}" r="3.5" fill="{color if full else "white"}" stroke="{color}"/>'
            )
    for index, line in enumerate(lines):
        color = COLORS[index % len(COLORS)]
        parts.append(f'<path d="M{LEFT + 12} {TOP + 14 + 18 * index}h22" stroke="{color}" stroke-width="2"/>')
        parts.append(f'<text x="{LEFT + 40}" y="{TOP + 18 + 18 * index}">{line.name}</text>')
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
    return path
