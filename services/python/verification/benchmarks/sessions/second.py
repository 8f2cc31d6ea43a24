"""Draws the batches of one second. Each session has a row, with a box for each of its steps."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from daybreak_server.batching.iterations import BatchRecord

WIDTH, LEFT, RIGHT, ROW, TITLE = 960, 84, 14, 15, 34
PREFILL, DECODE, READY = "#ea580c", "#60a5fa", "#111827"


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """The batches of some sessions, and when the audio of their turns was complete."""

    title: str
    records: Sequence[BatchRecord[Any]]
    ready: Mapping[Hashable, Sequence[float]]
    begins: float
    """When the drawn second begins."""


def draw(panels: Sequence[Panel], path: Path) -> Path:
    """Write the SVG, one panel below the other."""
    parts: list[str] = []
    y = 30.0
    for panel in panels:
        parts.append(f'<g transform="translate(0 {y:.0f})">{"".join(_panel(panel))}</g>')
        y += TITLE + ROW * len(panel.ready) + 28
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" font-family="sans-serif" '
        'font-size="11">',
        f'<rect width="{WIDTH}" height="{y:.0f}" fill="white"/>',
        *_legend(),
    ]
    path.write_text("\n".join([*head, *parts, "</svg>"]) + "\n")
    return path


def _legend() -> list[str]:
    return [
        f'<rect x="{LEFT}" y="12" width="12" height="10" fill="{PREFILL}"/>',
        f'<text x="{LEFT + 17}" y="21">prefill: the model hears the turn</text>',
        f'<rect x="{LEFT + 205}" y="12" width="12" height="10" fill="{DECODE}"/>',
        f'<text x="{LEFT + 222}" y="21">decode: a token</text>',
        f'<path d="M{LEFT + 330} 11v12" stroke="{READY}" stroke-width="2"/>',
        f'<text x="{LEFT + 338}" y="21">the audio of a turn is complete</text>',
        f'<path d="M{LEFT + 530} 17h34" stroke="#d1d5db" stroke-width="2"/>',
        f'<text x="{LEFT + 570}" y="21">the turn waits</text>',
    ]


def _across(at: float, panel: Panel) -> float:
    return LEFT + (WIDTH - LEFT - RIGHT) * (at - panel.begins)


def _panel(panel: Panel) -> list[str]:
    rows = {session: TITLE + ROW * number for number, session in enumerate(panel.ready)}
    bottom = TITLE + ROW * len(rows)
    parts = [f'<text x="{LEFT}" y="22" font-size="13">{escape(panel.title)}</text>']
    for session, y in rows.items():
        parts.append(f'<text x="{LEFT - 8}" y="{y + 11}" text-anchor="end">user {session}</text>')
    for tenth in range(11):
        x = LEFT + (WIDTH - LEFT - RIGHT) * tenth / 10
        parts.append(f'<path d="M{x:.1f} {TITLE}V{bottom}" stroke="#f3f4f6"/>')
        parts.append(f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{tenth * 100} ms</text>')
    parts += _waits(panel, rows)
    for record in panel.records:
        begin, end = max(record.started, panel.begins), min(record.started + record.seconds, panel.begins + 1)
        if begin >= end:
            continue
        x, width = _across(begin, panel), _across(end, panel) - _across(begin, panel)
        for sessions, color in ((record.prefill, PREFILL), (record.decode, DECODE)):
            parts += [
                f'<rect x="{x:.1f}" y="{rows[session] + 2}" width="{max(width - 0.8, 0.8):.1f}" height="{ROW - 4}" '
                f'fill="{color}"/>'
                for session in sessions
                if session in rows
            ]
    for session, times in panel.ready.items():
        parts += [
            f'<path d="M{_across(at, panel):.1f} {rows[session] + 1}v{ROW - 2}" stroke="{READY}" stroke-width="2"/>'
            for at in times
            if panel.begins <= at < panel.begins + 1
        ]
    return parts


def _waits(panel: Panel, rows: Mapping[Hashable, float]) -> list[str]:
    """Lines for the times when a turn waits: from the end of its audio to its prefill, and between its steps."""
    parts = []
    for session, y in rows.items():
        steps = [record for record in panel.records if session in record.prefill + record.decode]
        turns = iter(panel.ready[session])
        since = None
        for record in steps:
            if session in record.prefill:
                since = next(turns, None)
            if since is not None and record.started > since:
                begin = max(since, panel.begins)
                end = min(record.started, panel.begins + 1)
                if begin < end:
                    x, to = _across(begin, panel), _across(end, panel)
                    parts.append(
                        f'<path d="M{x:.1f} {y + ROW / 2}H{to:.1f}" stroke="#d1d5db" stroke-width="2"/>'
                    )
            since = record.started + record.seconds
    return parts
