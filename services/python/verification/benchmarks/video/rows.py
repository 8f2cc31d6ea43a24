"""Turns the measurements into rows."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from verification.benchmarks.video.subject import Timed
from verification.results import Row

SHARE, CONSTANT_S = 0.01, 0.05
"""How much longer than the bare loop a task may take: 1 % of the loop's time, plus 50 ms."""


def beside_bare(bare: Sequence[float], ours: Sequence[Timed]) -> list[Row]:
    """Compare tasks on Daybreak with the bare loop under torchrun, pair by pair."""
    baseline = statistics.median(bare)
    rows = []
    for what, times in (
        ("A task, from the POST to its last event", [task.wall_s for task in ours]),
        ("A task, from its claim to its settlement", [task.run_s for task in ours]),
    ):
        value = statistics.median(times)
        excess_s = statistics.median(ours_s - bare_s for ours_s, bare_s in zip(times, bare, strict=True))
        bound = SHARE * baseline + CONSTANT_S
        note = f"longer than the bare loop of its pair by {excess_s * 1e3:.0f} ms ({excess_s / baseline:.2%})"
        note += f"; allowed: {bound * 1e3:.0f} ms"
        rows.append(
            Row(
                what, value, "s", baseline=baseline, baseline_what=f"bare loop, {len(bare)} pairs",
                target="≤ baseline + 1 % + 50 ms", held=excess_s <= bound, spread=(min(times), max(times)), note=note,
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
    """How much of a task's time was spent outside the workload's code. This needs no run of the bare loop."""
    inside = statistics.median(task.inside_s for task in ours)
    outside = [task.wall_s - task.inside_s for task in ours]
    value, bound = statistics.median(outside), SHARE * inside + CONSTANT_S
    between = statistics.median(task.between_s for task in ours)
    steps = statistics.median(task.events["progress"] for task in ours)
    return Row(
        "A task, time outside the workload's own code", value * 1e3, "ms", target="≤ 1 % of the time inside + 50 ms",
        held=value <= bound, spread=(min(outside) * 1e3, max(outside) * 1e3),
        note=f"{value / inside:.2%} of the {inside:.2f} s inside; {between * 1e3:.0f} ms at {steps:g} points of "
        f"agreement, the rest before the first step and after the last; allowed: {bound * 1e3:.0f} ms",
    )  # fmt: skip


def cost_of(what: str, count: str, plain: Sequence[Timed], ours: Sequence[Timed]) -> list[Row]:
    """How much time a feature adds to a task, in total and for each use."""
    baseline = statistics.median(task.run_s for task in plain)
    value = statistics.median(task.run_s for task in ours)
    added_s = statistics.median(
        our_task.run_s - plain_task.run_s for our_task, plain_task in zip(ours, plain, strict=True)
    )
    times = statistics.median(task.events[count] for task in ours)
    spread = (min(task.run_s for task in ours), max(task.run_s for task in ours))
    each_s = added_s / times if times else 0.0
    return [
        Row(
            f"A task {what}, from its claim to its settlement", value, "s", baseline=baseline,
            baseline_what="the same task without them", spread=spread,
            note=f"{times:g} {count}s change the time by {added_s / baseline:+.1%}, {each_s * 1e3:.1f} ms each",
        ),
    ]  # fmt: skip
