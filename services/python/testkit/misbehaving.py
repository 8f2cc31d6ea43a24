"""A workload that misbehaves on request. A task's input chooses what the workload raises, logs and yields, and the
names of its artifacts.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

from pydantic import BaseModel, ConfigDict

from daybreak_server.workloads.base import (
    Context,
    Group,
    PermanentError,
    RetryableError,
    Step,
    Task,
    WorkloadSpec,
)

NOT_UTF8 = os.fsdecode(b"caf\xe9.mp4")


class MisbehavingParams(BaseModel):
    """What goes wrong. ``error`` and ``steps`` are keys of ``ERRORS`` and ``STEPS``; ``error`` can also be ``fork``.

    ``where`` (``first``, ``later`` or ``finally``), ``rank`` (default: all) and ``attempts`` (how many attempts fail)
    say when the error is raised. ``says`` (``surrogate``, ``nul`` or ``long``) selects the text of a log line and a
    phase. ``files`` are the names of the artifacts.
    """

    model_config = ConfigDict(extra="forbid")

    error: str = ""
    where: str = "first"
    rank: int | None = None
    attempts: int = 99
    steps: str = ""
    says: str = ""
    files: list[str] = []


SPEC: WorkloadSpec[MisbehavingParams] = WorkloadSpec(
    name="misbehaving", Params=MisbehavingParams, implementation="testkit.misbehaving:Misbehaving"
)


class SilentError(Exception):
    """An error whose `str` and `repr` raise `SystemExit`."""

    def __str__(self) -> str:
        raise SystemExit(9)

    __repr__ = __str__


class UnpicklableError(Exception):
    """An error that cannot be pickled."""

    def __init__(self) -> None:
        super().__init__("holds a lock")
        self.stream = sys.stderr

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle this")


class NumericCodeError(RetryableError):
    """An error whose code is a number instead of a string."""

    code: Any = 7


def _stop() -> None:
    next(iter(()))


def _group(*errors: BaseException) -> BaseException:
    return BaseExceptionGroup("several parts failed", errors)


ERRORS: dict[str, Callable[[], Any]] = {
    "exit": lambda: sys.exit(3),
    "exit with text": lambda: sys.exit("no licence"),
    "interrupt": lambda: _raise(KeyboardInterrupt()),
    "generator exit": lambda: _raise(GeneratorExit("stopped")),
    "base": lambda: _raise(BaseException("bare")),
    "silent": lambda: _raise(SilentError()),
    "huge": lambda: _raise(ValueError("x" * 50_000_000)),
    "surrogate": lambda: _raise(ValueError(f"cannot open {NOT_UTF8}")),
    "nul": lambda: _raise(RetryableError("a\0b", code="bad\0code")),
    "code": lambda: _raise(NumericCodeError("numbered")),
    "group": lambda: _raise(_group(ValueError("left"), KeyError("right"))),
    "permanent group": lambda: _raise(
        _group(ValueError("left"), PermanentError("never", code="part_refused"))
    ),
    "unpicklable": lambda: _raise(UnpicklableError()),
    "stop iteration": _stop,
    "os exit": lambda: os._exit(23),
}

STEPS: dict[str, Callable[[], Any]] = {
    "torch": lambda: Step(phase="misbehaving", fraction=_torch(0.5), step=_torch(2), steps=_torch(4)),
    "numpy": lambda: Step(
        phase="misbehaving",
        fraction=_numpy("float32", 0.5),
        step=_numpy("int64", 2),
        steps=_numpy("uint8", 4),
    ),
    "decimal": lambda: Step(phase="misbehaving", fraction=Decimal("0.5"), step=Decimal(2), steps=4.0),  # type: ignore[arg-type]
    "tiny": lambda: Step(phase="misbehaving", fraction=5e-324, step=2, steps=4),
    "nan": lambda: Step(phase="misbehaving", fraction=float("nan")),
    "infinite": lambda: Step(phase="misbehaving", fraction=float("inf")),
    "text": lambda: Step(phase="misbehaving", fraction="0.5"),  # type: ignore[arg-type]
    "truth": lambda: Step(phase="misbehaving", fraction=0.5, step=True),
    "half": lambda: Step(phase="misbehaving", fraction=0.5, step=2.5),  # type: ignore[arg-type]
    "negative": lambda: Step(phase="misbehaving", fraction=0.5, step=-1),
    "many": lambda: Step(phase="misbehaving", fraction=_torch([0.1, 0.2])),
    "no phase": lambda: Step(phase=None, fraction=0.5),  # type: ignore[arg-type]
    "no step": lambda: 0.5,
    "snapshot": lambda: Step(phase="misbehaving", fraction=0.5, snapshot=b"state"),  # type: ignore[arg-type]
}


class Misbehaving:
    """Raises, logs and yields what the input says. The option ``load`` is a key of ``ERRORS`` for ``load`` to raise."""

    def load(self, group: Group) -> None:
        self._group = group
        if "load" in group.options and group.options.get("load_rank", group.rank) == group.rank:
            ERRORS[group.options["load"]]()

    def warm_up(self) -> None:
        pass

    def run(self, task: Task[MisbehavingParams], ctx: Context) -> Iterator[Step]:
        params = task.params
        self._fail(task, "first")
        if params.error == "fork":
            _fork()
        try:
            if params.says:
                phase = self._say(ctx, params.says)
                yield Step(phase=phase, fraction=0.1)
            if params.steps:
                yield STEPS[params.steps]()
            yield Step(phase="misbehaving", fraction=0.6)
            self._fail(task, "later")
        finally:
            self._fail(task, "finally")
        for number, name in enumerate(params.files):
            path = ctx.workdir / str(number)
            path.write_text(name)
            name = NOT_UTF8 if name == "not UTF-8" else name  # noqa: PLW2901
            ctx.artifact(path, name=name, content_type="text/plain")
        yield Step(phase="misbehaving", fraction=1.0)

    def _say(self, ctx: Context, what: str) -> str:
        text = {"surrogate": NOT_UTF8, "nul": "a\0b", "long": "語" * 5000}[what]
        ctx.log(text, level=text)
        ctx.log(KeyError("a key"))  # type: ignore[arg-type]
        return text

    def _fail(self, task: Task[MisbehavingParams], where: str) -> None:
        params = task.params
        fails_here = params.where == where and params.rank in (None, self._group.rank)
        if params.error in ERRORS and fails_here and task.attempt <= params.attempts:
            ERRORS[params.error]()


def _fork() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if not child:
        sys.exit(0)
    if os.waitpid(child, 0)[1]:
        raise RuntimeError("the child failed")


def _raise(error: BaseException) -> None:
    raise error


def _torch(value: Any) -> Any:
    import torch

    return torch.tensor(value)


def _numpy(kind: str, value: Any) -> Any:
    import numpy

    return numpy.dtype(kind).type(value)
