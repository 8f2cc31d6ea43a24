"""Pure functions that turn the measurements into the rows of the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median
from typing import Protocol

from verification.benchmarks.k8s.timeline import WakeCycle
from verification.results import Row

POLLING_S = 2.0


class Measured(Protocol):
    """The durations measured for the baselines, in seconds."""

    start_s: list[float]
    join_s: list[float]
    load_s: list[float]


def post(at_zero: Sequence[float], warm: Sequence[float]) -> Row:
    """The row of the time that a POST takes without a group. Both arguments are in milliseconds."""
    value, baseline = median(at_zero), median(warm)
    return Row(
        what="From POST to 202 while no group exists, p50",
        value=value,
        unit="ms",
        baseline=baseline,
        baseline_what="the same with a warm group",
        target="≤ 1.25 × the baseline",
        held=value <= 1.25 * baseline,
        spread=(min(at_zero), max(at_zero)),
        note="through kubectl port-forward",
    )


def wakes(what: str, cycles: Sequence[WakeCycle], baselines: Measured | None) -> Iterator[Row]:
    """The rows of a pool's wakes: until KEDA detects the task, and until the group has it. Without ``baselines``, the
    second row has no baseline.
    """
    detected = [cycle.detected_s for cycle in cycles]
    target = POLLING_S + 1
    yield Row(
        what=f"{what}: from the POST until KEDA has raised `replicas`",
        value=median(detected),
        unit="s",
        target=f"≤ {target:g} s (polling interval + 1 s)",
        held=median(detected) <= target,
        spread=(min(detected), max(detected)),
    )
    baseline_s = (
        median(map(sum, zip(baselines.start_s, baselines.join_s, strict=True)))
        if baselines is not None
        else None
    )
    phases = ", ".join(
        f"{name.removesuffix('_s')} {seconds:.1f}" for name, seconds in cycles[-1].phases.items()
    )
    note = f"phases of the last wake in seconds: {phases}"
    yield _formed(
        what, cycles, baseline_s=baseline_s, baseline_what="a bare pod runs + `ray start` in it", note=note
    )


def hosts(what: str, cycles: Sequence[WakeCycle], whole_s: Sequence[float]) -> Iterator[Row]:
    """The rows of a group of several hosts, with each phase of its wake. Without ``whole_s`` there is no baseline."""
    yield _formed(
        what,
        cycles,
        baseline_s=median(whole_s) if whole_s else None,
        baseline_what="two bare pods run + `ray start` + load of the model",
        note=f"baseline: {min(whole_s):.1f} to {max(whole_s):.1f} s" if whole_s else "",
    )
    for name in cycles[-1].phases:
        seconds = [cycle.phases.get(name, 0.0) for cycle in cycles]
        phase = name.removesuffix("_s")
        total = phase == "total"
        yield Row(
            what=f"{what}: total" if total else f"{what}: phase `{phase}`",
            value=median(seconds),
            unit="s",
            spread=(min(seconds), max(seconds)),
            note="from the POST until the group is ready" if total else "",
        )


def _formed(
    what: str, cycles: Sequence[WakeCycle], *, baseline_s: float | None, baseline_what: str, note: str
) -> Row:
    """The time until a group has formed and has claimed a task. If there is a baseline, the row has a target."""
    groups = [cycle.group_s for cycle in cycles]
    return Row(
        what=f"{what}: from the RayCluster's patch until the group has a task",
        value=median(groups),
        unit="s",
        baseline=baseline_s,
        baseline_what=baseline_what if baseline_s else "",
        target="≤ 1.2 × the baseline" if baseline_s else "",
        held=median(groups) <= 1.2 * baseline_s if baseline_s else None,
        spread=(min(groups), max(groups)),
        note=note,
    )


def baselines(measured: Measured) -> Iterator[Row]:
    """The rows of the baselines, in seconds."""
    for what, seconds in (
        ("Baseline: until a bare pod runs", measured.start_s),
        ("Baseline: Ray's own `ray start` in a bare pod", measured.join_s),
        ("Baseline: load of the model in a plain process", measured.load_s),
    ):
        yield Row(what=what, value=median(seconds), unit="s", spread=(min(seconds), max(seconds)))


def down(cycles: Sequence[WakeCycle]) -> Row:
    """The row of the time until the pods of an idle group are gone."""
    seconds = [cycle.gone_s for cycle in cycles]
    return Row(
        what="Idle group: from a lower `replicas` until its pods are gone",
        value=median(seconds),
        unit="s",
        spread=(min(seconds), max(seconds)),
    )


def bursts(tasks: int, from_zero_s: float, running_s: float, *, wake_s: float) -> Row:
    """The row of a burst of ``tasks`` tasks into a pool at zero.

    :param from_zero_s: How long the burst took.
    :param running_s: How long the same burst took with running groups.
    :param wake_s: The shortest measured wake.
    """
    return Row(
        what=f"{tasks:,} tasks with one step of 10 ms, submitted at once while no group runs; at most 2 groups",
        value=from_zero_s,
        unit="s",
        baseline=running_s + wake_s,
        baseline_what="the same tasks with running groups + the shortest wake",
    )


def calls(an_hour: float) -> Row:
    """The row of the operator's calls to the Kubernetes API in an hour."""
    return Row(
        what="Operator with two pools at rest: calls to the Kubernetes API per hour",
        value=an_hour,
        unit="calls",
        note="watches are not counted; no call is a patch",
    )
