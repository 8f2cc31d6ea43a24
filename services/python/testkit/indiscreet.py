"""A workload that logs much, and whose errors and logs quote its prompt, as careless libraries do."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from daybreak_server.workloads.base import Context, Group, Step, Task, WorkloadSpec

_log = logging.getLogger("careless.library")


class IndiscreetParams(BaseModel):
    """The first ``fails`` attempts fail. ``lines`` is the number of additional log lines."""

    prompt: str
    fails: int = 0
    lines: int = 0


def _cost(params: IndiscreetParams) -> float:
    raise ValueError(f"cannot price {params.prompt!r}")


SPEC: WorkloadSpec[IndiscreetParams] = WorkloadSpec(
    name="indiscreet",
    Params=IndiscreetParams,
    implementation="testkit.indiscreet:Indiscreet",
    cost=_cost,
)


class Indiscreet:
    """Quotes the prompt in log messages, in a logged traceback, and in the error of an attempt that fails."""

    def load(self, group: Group) -> None: ...

    def warm_up(self) -> None: ...

    def run(self, task: Task[IndiscreetParams], ctx: Context) -> Iterator[Step]:
        prompt: str = task.params.prompt
        _log.warning("tokenizing %s", prompt)
        _log.warning("truncated: %s", prompt[len(prompt) // 3 :])
        _log.error("request %s", json.dumps({"prompt": prompt}))
        yield Step(phase="work", fraction=0.5)
        for number in range(1, task.params.lines + 1):
            ctx.log(f"line {number}")
        if task.attempt <= task.params.fails:
            raise ValueError(f"cannot draw {prompt!r}")
        parts: dict[str, Any] = {prompt: 1}
        try:
            parts[prompt[:20]]
        except KeyError:
            _log.exception("no such part")
