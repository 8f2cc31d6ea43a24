"""Runs tasks on Daybreak and times them from outside: from before the POST until the last event."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from daybreak.sync import Client
from verification.benchmarks.video.timed import MARK


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One task."""

    wall_s: float
    """From before the POST until the client had the last event."""
    run_s: float
    """From claim to settlement, by the store's clock."""
    sha256: str
    events: Mapping[str, int]
    inside_s: float = 0.0
    """The time spent in the workload's own code, on the leader; 0 if the workload has no stopwatch."""
    between_s: float = 0.0
    """The time spent on agreement and reports between the workload's steps."""


def run(client: Client, pool: str, params: Mapping[str, Any]) -> Timed:
    """Run one task alone. :raises RuntimeError: if it does not succeed."""
    started = time.perf_counter()
    task = client.submit(pool, params)
    event_counts: Counter[str] = Counter()
    watch: dict[str, float] = {}
    for event in client.events(task):
        event_counts[str(event.type)] += 1
        if event.type == "log" and str(event.data["message"]).startswith(MARK):
            watch = json.loads(str(event.data["message"]).removeprefix(MARK))
    wall = time.perf_counter() - started
    ended = client.get(task)
    if str(ended.state) != "succeeded" or ended.attempt != 1:
        raise RuntimeError(f"{task.id}: {ended.state} after {ended.attempt} attempts: {ended.error}")
    assert ended.started_at is not None
    assert ended.finished_at is not None
    video = next(artifact for artifact in ended.artifacts if artifact.name == "video.mp4")
    return Timed(
        wall_s=wall,
        run_s=(ended.finished_at - ended.started_at).total_seconds(),
        sha256=video.sha256,
        events=event_counts,
        **watch,
    )
