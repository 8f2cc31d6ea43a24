"""Writes the rows as a Markdown table. Rows that were not run say so."""

from __future__ import annotations

from collections.abc import Sequence

from verification.benchmarks.gpu.measure import Result, Row

HEAD = (
    "| model | size × frames | loop | setting | s/step | decode s | encode s | peak GiB (denoise / decode) |"
)
NOT_RUN = "not run"


def markdown(rows: Sequence[Row], results: Sequence[Result]) -> str:
    """The table. Each row has one line, whether it was measured or not."""
    results_by_row = {id(result.row): result for result in results}
    lines = [HEAD, "|" + "---|" * HEAD.count(" | ") + "---|"]
    lines += [_line(row, results_by_row.get(id(row))) for row in rows]
    return "\n".join(lines) + "\n"


def _line(row: Row, result: Result | None) -> str:
    start = f"| {row.model} | {row.size} × {row.frames} | {row.loop} | {row.title} | "
    if result is None:
        return start + " | ".join([NOT_RUN] * 4) + " |"
    if result.error:
        return start + f"failed: {result.error.replace('|', '/')} | | | |"
    peak = f"{_gib(result.denoise_peak_bytes)} / {_gib(result.decode_peak_bytes)}"
    return start + f"{_s(result.step_s)} | {_s(result.decode_s)} | {_s(result.encode_s)} | {peak} |"


def _s(seconds: float | None) -> str:
    return "–" if seconds is None else f"{seconds:.3f}"


def _gib(size: int | None) -> str:
    return "–" if size is None else f"{size / 2**30:.1f}"
