"""CPU time of a leader for each step of its tasks, with tracing off and on.

Two groups of one rank serve a pool each in this process. They run the same tasks in turn, and while one works the other
one only waits for its next task. As the gateway decides it, the share ``ratio`` of the tasks is sampled.
"""

from __future__ import annotations

import statistics
import time
from contextlib import ExitStack
from pathlib import Path

from daybreak_server import wiring
from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import NewTask
from daybreak_server.domain.tracing import TraceContext
from daybreak_server.settings.tree import Settings
from testkit.pools import Pool
from verification.benchmarks.tracing.serve import tracing

SAMPLED = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
UNSAMPLED = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-00")


class Subject:
    """A pool with a group, and what its steps took."""

    def __init__(
        self, stack: ExitStack, folder: Path, redis_url: str, *, collector: str, ratio: float
    ) -> None:
        settings = Settings.model_validate(
            {
                "data_dir": str(folder),
                "redis": {"url": redis_url},
                "pools": {"echo": {}},
                "tracing": tracing(collector, ratio).model_dump(),
            }
        )
        self.pool = Pool(settings, tick_s=1.0)
        stack.callback(self.pool.close)
        rank = wiring.build_rank(settings, "echo", on_broken=print)
        rank.start()
        stack.callback(rank.stop, timeout_s=10)
        self.step_us: list[float] = []

    def run(self, *, steps: int, trace: TraceContext) -> float:
        """Run a task. :returns: the CPU microseconds of this process for each step."""
        task = NewTask(
            id=new_task_id("echo"),
            pool="echo",
            tenant="default",
            trace_context=trace,
            input_json=f'{{"message":"hi","steps":{steps}}}',
        )
        began = time.process_time()
        self.pool.call(self.pool.store.submit([task]))
        self.pool.wait(task.id)
        return (time.process_time() - began) / steps * 1e6


def measure(
    folder: Path, redis_urls: tuple[str, str], collector: str, *, ratio: float, rounds: int, steps: int
) -> tuple[Subject, Subject]:
    """The subjects with tracing off and on, each with the mean of every round."""
    tasks = max(1, round(1 / ratio))
    with ExitStack() as stack:
        off = Subject(stack, folder / "off", redis_urls[0], collector="", ratio=ratio)
        on = Subject(stack, folder / "on", redis_urls[1], collector=collector, ratio=ratio)
        for subject in (off, on):
            subject.run(steps=steps, trace=SAMPLED)
        for _ in range(rounds):
            took: dict[str, list[float]] = {"off": [], "on": []}
            for number in range(tasks):
                trace = SAMPLED if number == 0 else UNSAMPLED
                pairs = [("off", off), ("on", on)]
                for name, subject in pairs if number % 2 else reversed(pairs):
                    took[name].append(subject.run(steps=steps, trace=trace))
            off.step_us.append(statistics.mean(took["off"]))
            on.step_us.append(statistics.mean(took["on"]))
    return off, on
