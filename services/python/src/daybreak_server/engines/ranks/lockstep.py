"""How one rank runs a task, or answers a request, in lockstep with the others.

A workload's ``run`` is a generator that every rank executes. (For a request, the engine makes a generator from
``serve``.) Each ``yield``, the end and an error are **points of agreement**:

1. :func:`advance` runs the generator to its next ``yield``, its end or an error, and makes a report of that.
2. ``agree`` exchanges reports. The leader collects one from each rank, decides
   (:mod:`~daybreak_server.engines.ranks.consensus`) and tells all ranks; a follower sends its report and waits for the
   decision.
3. After ``CONTINUE``, every rank runs its next step. Any other decision ends the work on every rank at this same point,
   so no rank enters a collective that another has left.

When the work ends early, the generator is closed, which raises ``GeneratorExit`` at its ``yield``. After ``BREAK``
the generator is not closed: its cleanup could wait for ranks that never arrive, and the process ends anyway.

The points are numbered from 1. Two ranks that report different numbers are no longer in lockstep.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from daybreak_server.engines.common.error_causes import describe
from daybreak_server.engines.ranks.consensus import GroupDecision, RankReport, Status, report_of
from daybreak_server.workloads.base import Context, Step, Task, Workload

_log = logging.getLogger(__name__)
S = TypeVar("S")


def advance(
    run: Iterator[Any], *, point: int, check: Callable[[Any], S], what: str = "task"
) -> tuple[RankReport, S | None]:
    """Run the work to its next step, which ``check`` checks. An error becomes part of the report.

    ``SystemExit`` and ``KeyboardInterrupt`` count as errors too. On this thread only the workload raises them. If they
    were not caught, they would silently end the thread and leave the pool without a group.
    """
    try:
        step = check(next(run))
    except StopIteration:
        return RankReport(point=point, status=Status.DONE), None
    except BaseException as exc:
        report = report_of(exc, point=point)
        _log.warning("the %s failed: %s", what, report.message, exc_info=True)
        return report, None
    return RankReport(point=point, status=Status.STEPPED), step


def begin(workload: Workload[Any], task: Task[Any], ctx: Context) -> Iterator[Step]:
    """Return the generator of a task. If the call of ``run`` itself raises, the first step fails with that error."""
    yield from workload.run(task, ctx)


def drive(
    run: Iterator[Any],
    agree: Callable[[RankReport, S | None], GroupDecision],
    *,
    check: Callable[[Any], S],
    what: str = "task",
) -> GroupDecision:
    """Run the work until the ranks agree on a decision that ends it, and return that decision.

    :param check: Checks each step, and returns it in its plain form.
    :param what: What the log calls the work.
    """
    point, owner = 0, os.getpid()
    while True:
        point += 1
        report, step = advance(run, point=point, check=check, what=what)
        if os.getpid() != owner:
            # The workload has forked, and this is the child process. Only the parent is the rank.
            os._exit(1 if report.failed and report.kind != "SystemExit" else 0)
        decision = agree(report, step)
        if decision is GroupDecision.BREAK:
            return decision
        if decision is not GroupDecision.CONTINUE:
            _close(run)
            return decision


def _close(run: Iterator[Any]) -> None:
    close = getattr(run, "close", None)
    if close is None:
        return
    try:
        close()
    except BaseException as exc:  # an error in the workload's cleanup cannot change an announced decision
        _log.warning("the task did not end cleanly: %s", describe(exc), exc_info=True)
