"""One line of the report of ``daybreakd doctor``."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What was checked, what was found, and ``advice`` on what to do (empty if there is nothing to do)."""

    level: Literal["ok", "warning", "error"]
    what: str
    found: str
    advice: str = ""

    def as_object(self) -> dict[str, Any]:
        """The check for ``--json``."""
        return asdict(self)


def ok(what: str, found: str) -> Check:
    """A check that found nothing wrong."""
    return Check(level="ok", what=what, found=found)


def warning(what: str, found: str, advice: str) -> Check:
    """A check that found a problem that does not make ``daybreakd doctor`` fail."""
    return Check(level="warning", what=what, found=found, advice=advice)


def error(what: str, found: str, advice: str) -> Check:
    """A check that found a problem that makes ``daybreakd doctor`` fail."""
    return Check(level="error", what=what, found=found, advice=advice)


def version(package: str) -> str | None:
    """The version of an installed package, or ``None``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
