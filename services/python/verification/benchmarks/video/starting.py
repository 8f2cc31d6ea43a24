"""Measures how soon a system is ready, and how soon a killed group is back."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

from daybreak_server.domain.pools import GROUP_PHASES, WakePhase
from testkit.waiting import wait_until
from verification.faults.system import processes
from verification.faults.system.up import Up
from verification.results import Row

PHASES = (WakePhase.RAY, *GROUP_PHASES)


def measure(repeats: int, *, ranks: int, say: Callable[[str], None]) -> list[Row]:
    """Measure the times from ``daybreakd up`` to a ready group, and from the kill of an idle leader to a new group.

    The measurement is made ``repeats`` times, each time with a new ``daybreakd up`` that has one video pool.
    """
    ready: list[float] = []
    cold: list[dict[str, float]] = []
    again: list[float] = []
    for number in range(repeats):
        with Up({"video": {"workload": "video", "ranks": ranks, "cpus_per_rank": 0.5}}) as up:
            ready.append(up.starts_s[0])
            cold.append({**up.call("/v1/pools/video")["wake"]["last"], "cold_s": up.cold_s["video"]})
            again.append(_rebuilt(up))
        say(f"{number + 1}/{repeats}: ready {ready[-1]:.1f} s, rebuilt {again[-1]:.1f} s, {cold[-1]}")
    totals = [phases["cold_s"] for phases in cold]
    baseline = statistics.median(totals)
    parts = ", ".join(
        f"{p} {statistics.median(phases.get(f'{p}_s', 0.0) for phases in cold):.1f}" for p in PHASES
    )
    value = statistics.median(again)
    return [
        Row(
            "From `daybreakd up` to a ready group", statistics.median(ready), "s", spread=(min(ready), max(ready)),
            note=f"one gang of {ranks} ranks with the tiny model",
        ),
        Row(
            "The gang's cold start, from a running Ray to a ready group", baseline, "s",
            spread=(min(totals), max(totals)),
            note=f"median of each phase: {parts} s; the phase `ray` begins when the leader's process starts",
        ),
        Row(
            "From the kill of a gang's leader until the gang is ready again", value, "s", baseline=baseline,
            baseline_what="the cold start", target="≤ 2 × the cold start", held=value <= 2 * baseline,
            spread=(min(again), max(again)),
        ),
    ]  # fmt: skip


def _rebuilt(up: Up) -> float:
    (group,) = up.ready_groups("video")
    at = time.monotonic()
    processes.kill(group["pids"][0])

    def replacements() -> list[dict[str, Any]]:
        return [candidate for candidate in up.ready_groups("video") if candidate["id"] != group["id"]]

    wait_until(replacements, 300, f"another group; see {up.logs()}")
    return time.monotonic() - at
