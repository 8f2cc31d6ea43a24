"""Keeps a bug in the tracing from failing a task. At most, such a bug loses spans."""

from __future__ import annotations

import functools
import logging
import threading
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_R = TypeVar("_R")
_warned = threading.Event()


def fall_back_to(default: Callable[..., Any]) -> Callable[[Callable[_P, _R]], Callable[_P, _R]]:
    """If the method raises, call ``default`` with the same arguments. A process logs only the first such error."""

    def decorate(method: Callable[_P, _R]) -> Callable[_P, _R]:
        @functools.wraps(method)
        def call(*args: _P.args, **kwargs: _P.kwargs) -> _R:
            try:
                return method(*args, **kwargs)
            except Exception:
                if not _warned.is_set():
                    _warned.set()
                    _log.warning("a trace is incomplete, because of a bug in the tracing", exc_info=True)
                return cast("_R", default(*args, **kwargs))

        return call

    return decorate


def nothing(*_args: object, **_kwargs: object) -> None:
    """Do nothing: a ``default`` for methods that return nothing."""
