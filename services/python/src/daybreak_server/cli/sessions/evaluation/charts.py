"""Draws the charts of an evaluation with matplotlib, which the extra ``evaluate`` installs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

from daybreak_server.batching.iterations.lag import percentile
from daybreak_server.cli.sessions.evaluation.run import Evaluation

matplotlib.use("Agg")

from matplotlib import pyplot

_HEATMAPS = {
    "lag_p95_s": "lag p95, s",
    "mean_batch_size": "mean batch size",
    "sustained": "sessions sustained",
}
_BEHIND = {"facecolor": "black", "alpha": 0.4, "linewidth": 0}


def draw(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Draw the measurements, and return the paths of the files."""
    paths = []
    if evaluation.talks:
        paths.append(_save(_user_charts(evaluation), folder / "user_test_charts.png"))
    if evaluation.summary["batch_tests"]:
        paths.append(_save(_heatmaps(evaluation.summary["batch_tests"]), folder / "batch_test_heatmaps.png"))
    return paths


def _user_charts(evaluation: Evaluation) -> Any:
    """Draw the test with the most users: its lag, its first text, the growth of its text, and its batches."""
    name, talks = max(evaluation.talks.items(), key=lambda item: len(item[1]))
    figure, ((lag, first), (growth, batches)) = pyplot.subplots(2, 2, figsize=(11, 8))
    figure.suptitle(f"{name}: {len(talks)} users")
    users = range(1, len(talks) + 1)
    for share in (0.95, 0.5):
        values = [percentile(talk.lags_s, share) for talk in talks]
        lag.bar(users, values, label=f"p{100 * share:.0f}")
    lag.set(title="Lag of the text", xlabel="user", ylabel="s")
    lag.legend()
    first.bar(users, [talk.first_text_s or 0.0 for talk in talks])
    first.set(title="First text", xlabel="user", ylabel="s")
    for talk in talks:
        growth.step([word.arrived_s for word in talk.timed], range(1, len(talk.timed) + 1), where="post")
    growth.set(title="Words that have arrived", xlabel="s", ylabel="words")
    for phase, sizes in evaluation.summary["tests"][name]["batches"].items():
        batches.bar(list(sizes), list(sizes.values()), alpha=0.6, label=phase)
    batches.set(title="Batches", xlabel="sessions in the batch", ylabel="batches")
    if batches.patches:
        batches.legend()
    return figure


def _heatmaps(cells: list[dict[str, Any]]) -> Any:
    sizes = sorted({cell["max_batch_size"] for cell in cells})
    timeouts = sorted({cell["batch_timeout_ms"] for cell in cells})
    found = {(cell["max_batch_size"], cell["batch_timeout_ms"]): cell for cell in cells}
    figure, axes = pyplot.subplots(1, len(_HEATMAPS), figsize=(5 * len(_HEATMAPS), 4.5))
    for axis, (key, title) in zip(axes, _HEATMAPS.items(), strict=True):
        values = [
            [_number(found.get((size, timeout), {}).get(key)) for timeout in timeouts] for size in sizes
        ]
        image = axis.imshow(values, aspect="auto", origin="lower")
        figure.colorbar(image, ax=axis)
        axis.set(title=title, xlabel="batch_timeout_ms", ylabel="max_batch_size")
        axis.set_xticks(range(len(timeouts)), [f"{timeout:g}" for timeout in timeouts])
        axis.set_yticks(range(len(sizes)), [str(size) for size in sizes])
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                axis.text(column, row, f"{value:.3g}", ha="center", va="center", color="white", bbox=_BEHIND)
    return figure


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def _save(figure: Any, path: Path) -> Path:
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
    return path
