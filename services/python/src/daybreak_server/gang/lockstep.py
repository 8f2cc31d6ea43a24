"""How one rank goes through a task: step by step, and at each step as all ranks agree."""

from __future__ import annotations

import contextlib
import logging
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daybreak_server.gang.verdict import Report, Status, Verdict, report_of
from daybreak_server.workloads.base import Context, Step, Task, Workload

_log = logging.getLogger(__name__)


def advance(run: Iterator[Step], *, point: int) -> tuple[Report, Step | None]:
    """Let a task do its next step. Errors become part of the report."""
    try:
        step = next(run)
    except StopIteration:
        return Report(point=point, status=Status.DONE), None
    except Exception as exc:
        _log.warning("the task failed: %s", exc, exc_info=True)
        return report_of(exc, point=point), None
    return Report(point=point, status=Status.STEPPED), step


def begin(workload: Workload[Any], task: Task[Any], ctx: Context) -> Iterator[Step]:
    """The run of a task. What goes wrong before its first step becomes an error of that step."""
    yield from workload.run(task, ctx)


def drive(run: Iterator[Step], agree: Callable[[Report, Step | None], Verdict]) -> Verdict:
    """Go through a task until all ranks agree to do something else. Where it ends early it is closed."""
    point = 0
    while True:
        point += 1
        report, step = advance(run, point=point)
        verdict = agree(report, step)
        if verdict is Verdict.BREAK:
            return verdict  # not closed: what its end would do may wait for ranks that never come
        if verdict is not Verdict.GO_ON:
            _close(run)
            return verdict


def _close(run: Iterator[Step]) -> None:
    close = getattr(run, "close", None)
    if close is None:
        return
    try:
        close()
    except Exception:
        _log.exception("the task did not end cleanly")


@contextlib.contextmanager
def work_folder(parent: Path | None) -> Iterator[Path]:
    """A scratch folder that is gone afterwards."""
    if parent is not None:
        parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="daybreak-", dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
