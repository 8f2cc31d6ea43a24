"""Turns the measurements into rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from verification.benchmarks.video.subject import Timed
from verification.results import Row

SHARE, CONSTANT_S = 0.01, 0.05
"""How much longer than the bare loop a task may take: 1 % and 50 ms."""


def beside_bare(bare: Sequence[float], ours: Sequence[Timed]) -> list[Row]:
    """A task on Daybreak beside the same loop under torchrun, pair by pair."""
    baseline = statistics.median(bare)
    rows = []
    for what, times in (
        ("A task, from the POST to its last event", [task.wall_s for task in ours]),
        ("A task, from its claim to its settlement", [task.run_s for task in ours]),
    ):
        value = statistics.median(times)
        more = statistics.median(mine - its for mine, its in zip(times, bare, strict=True))
        bound = SHARE * baseline + CONSTANT_S
        note = f"longer than the bare loop of its pair by {more * 1e3:.0f} ms ({more / baseline:.2%})"
        note += f"; allowed: {bound * 1e3:.0f} ms"
        rows.append(
            Row(
                what, value, "s", baseline=baseline, baseline_what=f"bare loop, {len(bare)} pairs",
                target="≤ baseline + 1 % + 50 ms", held=more <= bound, spread=(min(times), max(times)), note=note,
            )
        )  # fmt: skip
    if all(task.inside_s for task in ours):
        rows.append(_outside_workload(ours))
    rows.append(
        Row(
            "The bare loop",
            baseline,
            "s",
            spread=(min(bare), max(bare)),
            note="under torchrun, without Daybreak",
        )
    )
    return rows


def _outside_workload(ours: Sequence[Timed]) -> Row:
    """The same without a second run: how much of the time was spent outside the workload's code."""
    inside = statistics.median(task.inside_s for task in ours)
    rest = [task.wall_s - task.inside_s for task in ours]
    value, bound = statistics.median(rest), SHARE * inside + CONSTANT_S
    between = statistics.median(task.between_s for task in ours)
    steps = statistics.median(task.events["progress"] for task in ours)
    return Row(
        "A task, time outside the workload's own code", value * 1e3, "ms", target="≤ 1 % of the time inside + 50 ms",
        held=value <= bound, spread=(min(rest) * 1e3, max(rest) * 1e3),
        note=f"{value / inside:.2%} of the {inside:.2f} s inside; {between * 1e3:.0f} ms at {steps:g} points of "
        f"agreement, the rest before the first step and after the last; allowed: {bound * 1e3:.0f} ms",
    )  # fmt: skip


def cost_of(what: str, count: str, plain: Sequence[Timed], ours: Sequence[Timed]) -> list[Row]:
    """What a feature adds to a task, in total and each time."""
    baseline = statistics.median(task.run_s for task in plain)
    value = statistics.median(task.run_s for task in ours)
    more = statistics.median(mine.run_s - its.run_s for mine, its in zip(ours, plain, strict=True))
    times = statistics.median(task.events[count] for task in ours)
    spread = (min(task.run_s for task in ours), max(task.run_s for task in ours))
    each = more / times if times else 0.0
    return [
        Row(
            f"A task {what}, from its claim to its settlement", value, "s", baseline=baseline,
            baseline_what="the same task without them", spread=spread,
            note=f"{times:g} {count}s change the time by {more / baseline:+.1%}, {each * 1e3:.1f} ms each",
        ),
    ]  # fmt: skip
