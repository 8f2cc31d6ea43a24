"""Measures the CPU time that a group and its Redis need for a step of a task, in each mode of observability.

``modes`` lists the modes. Each mode has its own group of one rank, its own pool and its own Redis. The groups run the
same task one after the other, in random order. While a group works, the other groups only wait for their next task.
Only the tasks of the mode ``all`` have sampled traces.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from pathlib import Path

from daybreak_server.domain.ids import new_task_id
from daybreak_server.domain.tasks import NewTask
from daybreak_server.domain.tracing import TraceContext
from testkit.pools import Pool
from verification.benchmarks.http.parts import Running
from verification.benchmarks.observability_cost import modes
from verification.benchmarks.observability_cost.serve import group_settings

SAMPLED = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
UNSAMPLED = TraceContext(traceparent=f"00-{'a' * 32}-{'b' * 16}-00")


@dataclass(frozen=True, slots=True)
class Subject:
    """A workload whose steps are measured. Each round gives one figure for each mode: the mean of ``tasks`` tasks."""

    what: str
    workload: str
    input_json: str
    steps: int
    rounds: int
    tasks: int
    modes: tuple[str, ...]
    promised: bool


SUBJECTS = (
    Subject(
        "Step of the tiny video model",
        "video",
        '{"prompt":"a red circle moves left","seed":7,"steps":20}',
        steps=20,
        rounds=30,
        tasks=1,
        modes=("off", "all"),
        promised=True,
    ),
    Subject(
        "Step without work (`echo`)",
        "echo",
        '{"message":"hi","steps":400}',
        steps=400,
        rounds=12,
        tasks=50,
        modes=tuple(modes.MODES),
        promised=False,
    ),
)
Serve = Callable[..., AbstractContextManager[Running]]


class _Group:
    """A group in a process of its own, and its pool."""

    def __init__(
        self, stack: ExitStack, subject: Subject, mode: str, store: Running, folder: Path, serve: Serve
    ) -> None:
        self._subject, self._mode = subject, mode
        url = f"redis://127.0.0.1:{store.port}"
        data = str(folder / mode)
        running = stack.enter_context(serve((url, data, mode), subject.workload))
        self._pids = (running.process.pid, store.process.pid)
        self._pool = Pool(group_settings(url, data, modes.find("off"), "", subject.workload), tick_s=1.0)
        stack.callback(self._pool.close)
        self._trace_context = SAMPLED if mode == "all" else UNSAMPLED

    def run(self) -> float:
        """Run a task. :returns: the CPU microseconds for each step."""
        task = NewTask(
            id=new_task_id(self._subject.workload),
            pool=self._subject.workload,
            tenant="default",
            trace_context=self._trace_context,
            input_json=self._subject.input_json,
        )
        began = modes.cpu_s(*self._pids)
        self._pool.call(self._pool.store.submit([task]))
        self._pool.wait(task.id)
        return (modes.cpu_s(*self._pids) - began) / self._subject.steps * 1e6


def measure(
    folder: Path, stores: dict[str, Running], serve: Serve, *, subject: Subject, rounds: int, seed: int
) -> dict[str, list[float]]:
    """For each mode, the CPU microseconds per step in every round."""
    order = random.Random(seed)
    took: dict[str, list[float]] = {mode: [] for mode in subject.modes}
    with ExitStack() as stack:
        groups = {
            mode: _Group(stack, subject, mode, stores[mode], folder / subject.workload, serve)
            for mode in subject.modes
        }
        for group in groups.values():
            group.run()
        for _ in range(rounds):
            tasks: dict[str, list[float]] = {mode: [] for mode in groups}
            for _ in range(subject.tasks):
                for mode in order.sample(subject.modes, len(subject.modes)):
                    tasks[mode].append(groups[mode].run())
            for mode, figures in tasks.items():
                took[mode].append(statistics.mean(figures))
    return took
