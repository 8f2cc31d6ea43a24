"""Computes the lines of a file in windows, which are runs of consecutive lines.

Two windows are computed at once, so the device has work from one of them while the other is read, tokenised or
written. ``results`` yields the results in the order of the file.

A task must count as stalled if the model hangs, but not while its lines wait because all batches go to requests. Each
time that the workload calls ``cancelled``, the second argument of :data:`Compute`, it shows that the model does not
hang. The workload makes these calls even while all batches go to requests. So while ``results`` waits for a window, it
yields ``None`` up to four times a second, but only if the workload has called ``cancelled`` since the last ``None``.
The caller reports each ``None`` as a step, which beats the task's heartbeat. The caller also sees a cancel without
waiting for the window.

If the model fails on a window, each half of the window is computed again. A half that fails is halved again, until a
part has a single line. If that line fails, its result is the error. If a window has two or more lines and all of
them fail, the lines are not the cause, and the attempt fails. The attempt also fails at once after a
``PermanentError``, a ``RetryableError``, or an error that leaves the process unusable.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from daybreak_server.domain.log_context import inherited
from daybreak_server.domain.text import storable
from daybreak_server.engines.ranks.consensus import Status, report_of
from daybreak_server.engines.serving.bulk.jsonl import Line
from daybreak_server.workloads.base import PermanentError, RetryableError
from daybreak_server.workloads.bulk import LineError

WINDOW_LINES = 128
WINDOW_BYTES = 4 << 20
AHEAD = 2
"""How many windows are computed at once."""
_WAIT_S = 0.25

Result = Mapping[str, Any] | LineError
Compute = Callable[[Sequence[Any], Callable[[], bool]], Sequence[Result]]
"""Takes the values of some lines, and returns the result of each. The second argument is a function that returns true
once the results are no longer needed."""


@dataclass(frozen=True, slots=True)
class Window:
    """Consecutive lines, with the result of each."""

    lines: Sequence[Line]
    results: Sequence[Result]


def windows_of(
    lines: Iterator[Line], *, max_lines: int = WINDOW_LINES, max_bytes: int = WINDOW_BYTES
) -> Iterator[list[Line]]:
    """The lines in windows of at most ``max_lines`` lines and about ``max_bytes``."""
    window: list[Line] = []
    size = 0
    for line in lines:
        window.append(line)
        size += line.size
        if len(window) == max_lines or size >= max_bytes:
            yield window
            window, size = [], 0
    if window:
        yield window


class Windows:
    """Computes the windows of one attempt, as the module describes. Only one thread may use it, and must close it."""

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="bulk")
        self._closed = threading.Event()
        self._advanced = threading.Event()

    def results(self, lines: Iterator[Line]) -> Iterator[Window | None]:
        """The windows in order, and ``None`` where the work advances before the next one is ready.

        :raises Exception: the error of ``compute``, if no single line caused it.
        """
        waiting: deque[tuple[list[Line], Future[Sequence[Result]]]] = deque()
        source = windows_of(lines)
        while True:
            while len(waiting) < AHEAD and (window := next(source, None)) is not None:
                waiting.append((window, self._threads.submit(inherited(self._window), window)))
            if not waiting:
                return
            window, future = waiting[0]
            if wait([future], timeout=_WAIT_S).done:
                waiting.popleft()
                yield Window(window, future.result())
            elif self._advanced.is_set():
                self._advanced.clear()
                yield None

    def close(self) -> None:
        """Abandon the windows that are still being computed. Does not wait for them, because a model may hang."""
        self._closed.set()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _cancelled(self) -> bool:
        self._advanced.set()
        return self._closed.is_set()

    def _window(self, window: Sequence[Line]) -> Sequence[Result]:
        computed = iter(self._values([line.value for line in window if line.error is None]))
        return [next(computed) if line.error is None else line.error for line in window]

    def _values(self, values: Sequence[Any]) -> Sequence[Result]:
        blamed: list[Exception] = []
        results = self._halved(values, blamed)
        if len(blamed) == len(values) > 1:
            raise RetryableError(
                f"Each of {len(values)} lines failed: {storable(blamed[0])}", code="all_lines_failed"
            ) from blamed[0]
        return results

    def _halved(self, values: Sequence[Any], blamed: list[Exception]) -> list[Result]:
        if not values:
            return []
        try:
            results = list(self._compute(values, self._cancelled))
        except (PermanentError, RetryableError):
            raise
        except Exception as exc:
            report = report_of(exc, point=0)
            if report.status is Status.UNRECOVERABLE:
                raise
            if len(values) == 1:
                blamed.append(exc)
                return [LineError(report.message, code=report.code)]
            half = len(values) // 2
            return self._halved(values[:half], blamed) + self._halved(values[half:], blamed)
        if len(results) != len(values):
            raise PermanentError(f"The workload returned {len(results)} results for {len(values)} lines.")
        return results
