"""Draws a heat map of requests per second, by ``max_batch_size`` and ``batch_timeout_ms``.

It needs no plotting library.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

CELL_WIDTH, CELL_HEIGHT, LEFT, TOP, BOTTOM, RIGHT = 86, 46, 92, 58, 58, 24
LOW, HIGH = (239, 246, 255), (29, 78, 216)
"""The colours of the lowest and of the highest value."""


def draw(
    cells: Mapping[tuple[int, float], tuple[float, float]],
    *,
    title: str,
    subtitle: str,
    path: Path,
) -> Path:
    """Write the SVG. ``cells``: (maximum batch size, timeout in ms) → (requests per second, mean batch size)."""
    sizes = sorted({size for size, _ in cells})
    timeouts = sorted({timeout for _, timeout in cells})
    width = LEFT + CELL_WIDTH * len(sizes) + RIGHT
    height = TOP + CELL_HEIGHT * len(timeouts) + BOTTOM
    rates = [rate for rate, _ in cells.values()]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
        f'<text x="{LEFT}" y="22" font-size="15">{title}</text>',
        f'<text x="{LEFT}" y="42" fill="#555">{subtitle}</text>',
    ]
    for row, timeout in enumerate(timeouts):
        for column, size in enumerate(sizes):
            if (size, timeout) in cells:
                rate, batch = cells[size, timeout]
                parts += _cell(column, row, rate, batch, share=_share(rate, rates))
    parts += _axes(sizes, timeouts, height)
    path.write_text("\n".join([*parts, "</svg>"]) + "\n")
    return path


def _share(rate: float, rates: Sequence[float]) -> float:
    low, high = min(rates), max(rates)
    return (rate - low) / (high - low) if high > low else 1.0


def _cell(column: int, row: int, rate: float, batch: float, *, share: float) -> list[str]:
    x, y = LEFT + CELL_WIDTH * column, TOP + CELL_HEIGHT * row
    color = ",".join(str(round(low + (high - low) * share)) for low, high in zip(LOW, HIGH, strict=True))
    ink = "white" if share > 0.55 else "#111"
    middle = x + CELL_WIDTH / 2
    return [
        f'<rect x="{x}" y="{y}" width="{CELL_WIDTH - 2}" height="{CELL_HEIGHT - 2}" fill="rgb({color})"/>',
        f'<text x="{middle:g}" y="{y + 20}" text-anchor="middle" font-size="14" fill="{ink}">{rate:.0f}</text>',
        f'<text x="{middle:g}" y="{y + 36}" text-anchor="middle" font-size="10" fill="{ink}">∅ {batch:.1f}</text>',
    ]


def _axes(sizes: Sequence[int], timeouts: Sequence[float], height: int) -> list[str]:
    bottom, center = height - BOTTOM, LEFT + CELL_WIDTH * len(sizes) / 2
    middle = TOP + CELL_HEIGHT * len(timeouts) / 2
    return [
        *(
            f'<text x="{LEFT - 8}" y="{TOP + CELL_HEIGHT * row + 27}" text-anchor="end">{timeout:g} ms</text>'
            for row, timeout in enumerate(timeouts)
        ),
        *(
            f'<text x="{LEFT + CELL_WIDTH * (column + 0.5):g}" y="{bottom + 18}" text-anchor="middle">{size}</text>'
            for column, size in enumerate(sizes)
        ),
        f'<text x="{center:g}" y="{height - 16}" text-anchor="middle">max_batch_size</text>',
        f'<text transform="translate(18 {middle:g}) rotate(-90)" text-anchor="middle">batch_timeout_ms</text>',
    ]
