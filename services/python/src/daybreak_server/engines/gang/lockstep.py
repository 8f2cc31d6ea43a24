"""How one rank goes through a task: step by step, and at each step as all ranks agree."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from daybreak_server.engines.gang.consensus import Report, Status, Verdict, report_of
from daybreak_server.engines.rank.causes import described
from daybreak_server.engines.rank.outputs import checked_step
from daybreak_server.workloads.base import Context, Step, Task, Workload

_log = logging.getLogger(__name__)


def advance(run: Iterator[Step], *, point: int) -> tuple[Report, Step | None]:
    """Let a task do its next step. Errors become part of the report.

    All of them: this runs on a thread of the group's own, where nobody but the work raises ``SystemExit`` or
    ``KeyboardInterrupt``. They would end the thread without a word, and the pool would have no group.
    """
    try:
        step = checked_step(next(run))
    except StopIteration:
        return Report(point=point, status=Status.DONE), None
    except BaseException as exc:
        report = report_of(exc, point=point)
        _log.warning("the task failed: %s", report.message, exc_info=True)
        return report, None
    return Report(point=point, status=Status.STEPPED), step


def begin(workload: Workload[Any], task: Task[Any], ctx: Context) -> Iterator[Step]:
    """The run of a task. What goes wrong before its first step becomes an error of that step."""
    yield from workload.run(task, ctx)


def drive(run: Iterator[Step], agree: Callable[[Report, Step | None], Verdict]) -> Verdict:
    """Go through a task until all ranks agree to do something else. Where it ends early it is closed."""
    point, owner = 0, os.getpid()
    while True:
        point += 1
        report, step = advance(run, point=point)
        if (
            os.getpid() != owner
        ):  # a child that the work has forked and that came back: there is only one of this rank
            os._exit(1 if report.failed and report.kind != "SystemExit" else 0)
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
    except BaseException as exc:  # what its `finally` raises changes nothing: the verdict is told already
        _log.warning("the task did not end cleanly: %s", described(exc), exc_info=True)


class ScratchDirs:
    """Scratch folders of a rank's attempts, one at a time, each empty when its attempt begins and gone afterwards.

    One that an attempt has left empty serves the next: making and removing a folder would be most of what an
    instant task costs its leader.
    """

    def __init__(self, parent: Path | None) -> None:
        self._parent = parent
        self._spare: Path | None = None

    @contextlib.contextmanager
    def one(self) -> Iterator[Path]:
        """The folder of an attempt. :raises OSError: where none can be made."""
        folder, self._spare = self._spare, None
        if folder is None or not folder.is_dir():
            folder = self._make()
        try:
            yield folder
        finally:
            if _is_empty(folder):
                self._spare = folder
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what is spare."""
        folder, self._spare = self._spare, None
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)

    def _make(self) -> Path:
        if self._parent is not None:
            self._parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix="daybreak-", dir=self._parent))


def _is_empty(folder: Path) -> bool:
    try:
        with os.scandir(folder) as entries:
            return next(entries, None) is None
    except OSError:
        return False
