"""The video workload with a stopwatch, which measures how long the workload ran, and how long it waited between steps.

A pool uses it with ``workload: verification.benchmarks.video.timed:SPEC``. The stopwatch shows exactly how much of a
task's time was spent outside the workload. A comparison with a bare loop, which runs the same workload without
Daybreak, would be inexact on a busy machine.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator

from daybreak_server.workloads.base import Context, Step, Task
from daybreak_server.workloads.video.pipeline.workload import VideoWorkload
from daybreak_server.workloads.video.spec import params

MARK = "stopwatch "
"""The beginning of the line in the task's log. JSON follows in the same line."""


class TimedVideo(VideoWorkload):
    """The video workload, which logs its times at the end."""

    def run(self, task: Task[params.VideoParams], ctx: Context) -> Iterator[Step]:
        inside = between = 0.0
        run = super().run(task, ctx)
        try:
            while True:
                began = time.perf_counter()
                step = next(run, None)
                ended = time.perf_counter()
                inside += ended - began
                if step is None:
                    break
                yield step
                between += time.perf_counter() - ended
        finally:
            run.close()  # type: ignore[attr-defined]
        ctx.log(MARK + json.dumps({"inside_s": inside, "between_s": between}))


SPEC = dataclasses.replace(params.SPEC, implementation="verification.benchmarks.video.timed:TimedVideo")
