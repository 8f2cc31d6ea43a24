"""Writes the results of an evaluation: ``summary.json``, ``README.md`` and the charts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from daybreak_server.cli.sessions.evaluation.run import Evaluation

_ROWS = {
    "users": "users",
    "finished": "sessions that finished",
    "sustained": "sessions sustained (p95 lag < 2 s)",
    "bleu": "BLEU",
    "accuracy": "word accuracy",
    "stream_laal_s": "StreamLAAL without computation, s",
    "stream_laal_ca_s": "StreamLAAL with computation, s",
    "lag_p50_s": "lag p50, s",
    "lag_p95_s": "lag p95, s",
    "first_text_p50_s": "first text p50, s",
    "first_text_p95_s": "first text p95, s",
    "rtf": "real-time factor",
    "mean_batch_size": "mean batch size",
    "degraded": "changes of the turns' length",
}


def write(evaluation: Evaluation, folder: Path, *, charts: bool) -> list[Path]:
    """Write the files. Returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "summary.json", folder / "README.md"]
    paths[0].write_text(json.dumps(evaluation.summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if charts:
        from daybreak_server.cli.sessions.evaluation import charts as drawing

        paths += drawing.draw(evaluation, folder)
    paths[1].write_text(readme(evaluation.summary, [path.name for path in paths[2:]]), encoding="utf-8")
    return paths


def readme(summary: dict[str, Any], charts: list[str]) -> str:
    """The text of ``README.md``: the figures in tables, and the charts."""
    server, options = summary["server"], summary["options"]
    lines = [
        f"# Evaluation of the pool {server['pool']}",
        "",
        f"{summary['began_at']}, {server['url']}, workload {server['workload']}, target {options['target']}, "
        f"{options['test_duration_s']:g} s of audio a user. Audio: {summary.get('audio', 'none')}.",
        "",
    ]
    tests = {name: figures for name, figures in summary["tests"].items() if "users" in figures}
    if "health" in summary["tests"]:
        lines += [f"Health: {'passed' if summary['tests']['health']['passed'] else 'failed'}.", ""]
    if tests:
        lines += [f"| | {' | '.join(tests)} |", f"|---|{'---|' * len(tests)}"]
        for key, label in {**_ROWS, "passed": "passed"}.items():
            lines.append(f"| {label} | {' | '.join(_cell(figures[key]) for figures in tests.values())} |")
        lines += ["", *_histograms(tests)]
    if summary["batch_tests"]:
        lines += _batch_tests(summary["batch_tests"])
    lines += [f"![{name}]({name})" for name in charts]
    return "\n".join(lines).rstrip() + "\n"


def _histograms(tests: dict[str, Any]) -> list[str]:
    lines = ["Batches by phase and number of sessions:", ""]
    for name, figures in tests.items():
        for phase, sizes in figures["batches"].items():
            lines.append(
                f"- {name}, {phase}: " + ", ".join(f"{size}: {count}" for size, count in sizes.items())
            )
    return [*lines, ""]


def _batch_tests(cells: list[dict[str, Any]]) -> list[str]:
    lines = [
        "Batch size and timeout, with the strategy `request`:",
        "",
        "| max_batch_size | batch_timeout_ms | mean batch size | lag p50, s | lag p95, s | sustained |",
        "|---|---|---|---|---|---|",
    ]
    for cell in cells:
        keys = (
            "max_batch_size",
            "batch_timeout_ms",
            "mean_batch_size",
            "lag_p50_s",
            "lag_p95_s",
            "sustained",
        )
        lines.append(f"| {' | '.join(_cell(cell[key]) for key in keys)} |")
    return [*lines, ""]


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "–" if value is None else f"{value:g}"
