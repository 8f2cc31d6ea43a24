"""Finds the class of a strategy by its name: a built-in strategy, an entry point of the group ``daybreak.strategies``,
or ``package.module:Class``."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoints, entry_points
from inspect import isabstract
from typing import Any

GROUP = "daybreak.strategies"
_BUILT_IN_MODULE = "daybreak_server.batching.iterations.strategies"
_BUILT_IN = {"iteration": "OnePhase", "mixed": "BothPhases", "request": "WholeTurns", "single": "OneTurn"}


def names() -> list[str]:
    """All names that need no import path: those of the built-in strategies first, then those of the installed ones."""
    return [*_BUILT_IN, *sorted(_installed().names - _BUILT_IN.keys())]


def check(name: str) -> str:
    """Return the name if it is known or is an import path. The class is not imported.

    :raises ValueError: if there is no such name. The message lists the known names.
    """
    if name in _BUILT_IN or ":" in name or name in names():
        return name
    raise ValueError(
        f"there is no strategy {name!r}; use {', '.join(names())}, or package.module:Class for one of your own"
    )


def find(name: str) -> Any:
    """The class of a strategy. :raises ValueError: if there is no such class, or it is not a strategy."""
    check(name)
    if name in _BUILT_IN:
        return getattr(import_module(_BUILT_IN_MODULE), _BUILT_IN[name])
    path = name if ":" in name else next(iter(_installed().select(name=name))).value
    module, _, attribute = path.partition(":")
    try:
        found = getattr(import_module(module), attribute)
    except Exception as exc:
        raise ValueError(f"the strategy {name!r} cannot be imported: {exc}") from exc
    if not (isinstance(found, type) and callable(getattr(found, "choose", None))) or isabstract(found):
        raise ValueError(f"the strategy {name!r} is not a class with a method `choose`")
    return found


def create(name: str) -> Any:
    """A new object of the strategy's class.

    :raises ValueError: if there is no such class, it is not a strategy, or it needs arguments. The message says which
        of the three it is.
    """
    try:
        return find(name)()
    except TypeError as exc:
        raise ValueError(f"the strategy {name!r} cannot be created without arguments: {exc}") from exc


@cache
def _installed() -> EntryPoints:
    """The entry points of installed strategies. Finding them reads a file of each installed package."""
    return entry_points(group=GROUP)
