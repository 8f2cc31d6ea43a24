"""The video workload with a stopwatch: how long its own code ran, and how long it waited between its steps.

Named in a pool as ``workload: verification.benchmarks.video.timed:SPEC``. Beside pairs with a bare loop, which a busy machine
blurs, this tells exactly what of a task's time was not the workload's own.
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
"""How the line in the task's log begins; JSON follows."""


class TimedVideo(VideoWorkload):
    """As the video workload."""

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
