"""A workload that records its calls in a file and fails where its options say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak_server.workloads.base import Context, Group, Step, Task
from daybreak_server.workloads.echo.spec import SPEC as ECHO

SPEC = replace(ECHO, name="recording", implementation="testkit.recording:Recording")
ABSENT = replace(ECHO, name="absent", implementation="testkit.recording:NoSuchClass")


class Recording:
    """Appends each call to the file that the option ``calls_file`` names.

    With the option ``fail: warm_up``, ``warm_up`` raises an error. ``step_s`` is how many seconds ``run`` takes.
    """

    def load(self, group: Group) -> None:
        self._options = group.options
        self._record(f"load {group.options['model']}" if "model" in group.options else "load")

    def warm_up(self) -> None:
        self._record("warm_up")
        if self._options.get("fail") == "warm_up":
            raise RuntimeError("the kernels do not compile")

    def run(self, task: Task[Any], ctx: Context) -> Iterator[Step]:
        self._record("run")
        time.sleep(self._options.get("step_s", 0))
        yield Step(phase="recording", fraction=1.0)

    def _record(self, call: str) -> None:
        if "calls_file" in self._options:
            with Path(self._options["calls_file"]).open("a") as file:
                file.write(f"{call}\n")
