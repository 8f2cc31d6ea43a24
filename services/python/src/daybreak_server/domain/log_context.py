"""The fields, such as task, attempt, pool, rank and request id, that each log line of the current work gets.

Code that starts a piece of work binds the fields of this work. All lines that the work logs then have these fields,
even the lines of libraries. A new thread has no fields: start it with :func:`inherited` to give it those of its parent.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar, copy_context
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
LogValue = str | int | float

TASK_INDEPENDENT = ("pool", "rank", "request_id")
"""The bound fields that a log line keeps if the line is about a task other than the bound task."""

_FIELDS: ContextVar[Mapping[str, LogValue]] = ContextVar("log_fields", default={})  # noqa: B039 - never changed


def current() -> Mapping[str, LogValue]:
    """The fields of the current thread or coroutine."""
    return _FIELDS.get()


def bind(**fields: LogValue) -> None:
    """Add fields for the rest of this thread or coroutine. Empty texts are left out."""
    _FIELDS.set({**_FIELDS.get(), **_known(fields)})


class bound:  # noqa: N801 - reads like a function. Each request enters it, and a generator would cost twice as much
    """Add fields inside a ``with`` block. Empty texts are left out."""

    __slots__ = ("_before", "_fields")

    def __init__(self, **fields: LogValue) -> None:
        self._fields = fields

    def __enter__(self) -> None:
        fields = _known(self._fields) if "" in self._fields.values() else self._fields
        before = _FIELDS.get()
        self._before = _FIELDS.set({**before, **fields} if before else fields)

    def __exit__(self, *_: object) -> None:
        _FIELDS.reset(self._before)


def about(task: str) -> dict[str, object]:
    """The bound fields for a line about ``task``. If another task is bound, the fields of that task are left out."""
    context = _FIELDS.get()
    if context.get("task") == task:
        return dict(context)
    return {name: context[name] for name in TASK_INDEPENDENT if name in context}


def inherited(function: Callable[P, T]) -> Callable[P, T]:
    """Wrap ``function``, for example the target of a thread, so that it runs with the fields that are bound now."""
    context = copy_context()

    def run(*args: P.args, **options: P.kwargs) -> T:
        return context.copy().run(function, *args, **options)

    return run


def _known(fields: Mapping[str, LogValue]) -> dict[str, LogValue]:
    return {name: value for name, value in fields.items() if value != ""}
