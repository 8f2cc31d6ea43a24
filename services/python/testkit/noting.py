"""A workload that records its calls in a file and fails where its options say so."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from daybreak_server.workloads.base import Context, Group, Step, Task
from daybreak_server.workloads.echo.spec import SPEC as ECHO

SPEC = replace(ECHO, name="noting", implementation="testkit.noting:Noting")
ABSENT = replace(ECHO, name="absent", implementation="testkit.noting:NoSuchClass")


class Noting:
    def load(self, group: Group) -> None:
        self._options = group.options
        self._note(f"load {group.options['model']}" if "model" in group.options else "load")

    def warm_up(self) -> None:
        self._note("warm_up")
        if self._options.get("fail") == "warm_up":
            raise RuntimeError("the kernels do not compile")

    def run(self, task: Task[Any], ctx: Context) -> Iterator[Step]:
        self._note("run")
        time.sleep(self._options.get("step_s", 0))
        yield Step(phase="noting", fraction=1.0)

    def _note(self, what: str) -> None:
        if "notes" in self._options:
            with Path(self._options["notes"]).open("a") as notes:
                notes.write(f"{what}\n")
