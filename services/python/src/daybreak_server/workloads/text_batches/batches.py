"""Runs the inputs of all requests and tasks of a group in batches. Failures become errors of the request or the task.

A request waits on its own thread for its results (:class:`~daybreak_server.batching.executor.BatchExecutor`). While it
waits, it asks up to ten times a second whether its client has gone. Each such question shows the group's leader that
the request advances. So a request asks only while the group really advances: either no batch runs, or a batch has
ended since the request last asked. If the model hangs, no request asks, so the requests stall and the group restarts.
"""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from daybreak_server.batching.batcher import BULK, FullError
from daybreak_server.batching.executor import (
    BatchExecutor,
    BatchReport,
    CancelledError,
    ClosedError,
    ExpiredError,
)
from daybreak_server.batching.rules import Rules
from daybreak_server.workloads.base import Group, RetryableError
from daybreak_server.workloads.serving import Request, RequestError

_log = logging.getLogger(__name__)
P = TypeVar("P")
R = TypeVar("R")
_WEIGHT = 0.2


class TextBatches(Generic[P, R]):
    """The batches of one group. ``run`` gets the inputs of one batch at a time, always on the same thread."""

    def __init__(
        self, run: Callable[[Sequence[P]], Sequence[R]], settings: Mapping[str, Any], *, group: Group
    ) -> None:
        self._settings = dict(settings)
        self._meter = group.batch_meter
        self._run = run
        self._ended = 0
        self._running = False
        self._items_per_s = 0.0
        self._meter.begin()
        self._executor: BatchExecutor[P, R] = BatchExecutor(
            self._run_batch, Rules.of(self._settings), observe=self._observe
        )

    def compute(self, request: Request, inputs: Sequence[P], lengths: Sequence[int]) -> list[R]:
        """The results of the inputs, in their order.

        :raises RequestError: 422, 429, 503 or 504. If the model raises an error for one input, this error is raised.
        """
        max_waiting = self._executor.rules.max_waiting
        if len(inputs) > max_waiting:
            message = (
                f"The request has {len(inputs)} texts; at most {max_waiting} may wait here. "
                "Send several requests."
            )
            raise RequestError(422, message, code="too_many")
        try:
            return self._executor.compute(
                inputs,
                lengths,
                deadline=math.inf if request.deadline is None else request.deadline,
                cancelled=self._cancelled_after_progress(request.cancelled),
            )
        except FullError as exc:
            self._meter.refused()
            waiting = self._executor.counted
            retry_after_s = waiting / self._items_per_s if self._items_per_s else 1.0
            raise RequestError(
                429,
                f"Too many texts wait here ({waiting} of at most {max_waiting}). Send the request again later.",
                code="queue_full",
                retry_after_s=min(60.0, max(1.0, retry_after_s)),
            ) from exc
        except (ExpiredError, CancelledError) as exc:
            message = "The deadline of the request passed before it was answered. Allow more time."
            raise RequestError(504, message, code="deadline_passed") from exc
        except ClosedError as exc:
            message = "The group is leaving. Send the request again."
            raise RequestError(503, message, code="shutting_down", retry_after_s=1.0) from exc

    def compute_bulk(
        self, inputs: Sequence[P], lengths: Sequence[int], *, cancelled: Callable[[], bool]
    ) -> list[R]:
        """The results of a task's inputs, in their order. Inputs of requests go first.

        :param cancelled: whether nobody waits for the results any more. It is called only if no batch runs, or if
            a batch has ended since the last call. So each call also shows that the group works, even while inputs of
            requests fill all batches and this task's own inputs wait.
        :raises RetryableError: if nobody waits, or the group leaves. If the model raises an error for one input, this
            error is raised.
        """
        try:
            return self._executor.compute(
                inputs, lengths, priority=BULK, cancelled=self._cancelled_after_progress(cancelled)
            )
        except (CancelledError, ClosedError) as exc:
            raise RetryableError("The group stopped before all lines were computed.", code="stopped") from exc

    def _cancelled_after_progress(self, cancelled: Callable[[], bool]) -> Callable[[], bool]:
        """Return a function that asks ``cancelled``.

        While a batch runs, and none has ended since the last question, the function returns ``False`` at once.
        """
        ended = -1

        def cancelled_now() -> bool:
            nonlocal ended
            if self._running and ended == self._ended:
                return False
            ended = self._ended
            return cancelled()

        return cancelled_now

    def set_batching(self, changes: Mapping[str, Any]) -> None:
        """From the next batch on, use the settings with these changes. Changes that cannot be used are only logged."""
        try:
            self._executor.rules = Rules.of({**self._settings, **changes})
        except (TypeError, ValueError) as exc:  # the gateway has checked them, but may be of another version
            _log.error("the change of `batching` cannot be used, so the earlier values stay: %s", exc)

    def shown(self) -> dict[str, Any]:
        """What ``GET /debug`` shows of the batches."""
        return {
            "load": {
                "waiting": self._executor.waiting,
                "running": self._running,
                "items_per_s": round(self._items_per_s, 2),
            },
            "batching": self._executor.rules.settings(),
            "batches": {str(size): count for size, count in self._executor.sizes().items()},
        }

    def close(self) -> None:
        """End the thread that runs the batches, after its present batch."""
        self._executor.close()

    def _run_batch(self, inputs: Sequence[P]) -> Sequence[R]:
        self._running = True
        try:
            return self._run(inputs)
        finally:
            self._running = False
            self._ended += 1

    def _observe(self, report: BatchReport) -> None:
        rate = report.size / max(report.seconds, 1e-6)
        self._items_per_s += (_WEIGHT if self._items_per_s else 1.0) * (rate - self._items_per_s)
        self._meter.batch(report.size, report.seconds)
        if report.waited_s is not None:
            self._meter.waited(report.waited_s)
        if report.failed:
            self._meter.failed()
        self._meter.waiting(self._executor.waiting)


def process_shown(began: float, device: str) -> dict[str, Any]:
    """What ``GET /debug`` shows of the process. ``began``: its start, in monotonic seconds."""
    shown: dict[str, Any] = {"rss_bytes": _rss_bytes()}
    if device.startswith("cuda"):
        import torch

        free, total = torch.cuda.mem_get_info()
        shown |= {"device_free_bytes": free, "device_total_bytes": total}
        shown["device_used_bytes"] = torch.cuda.memory_allocated()
    return {"device": device, "up_s": round(time.monotonic() - began, 1), "pid": os.getpid(), "memory": shown}


def _rss_bytes() -> int | None:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None  # not Linux
