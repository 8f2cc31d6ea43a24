"""A line of ``daybreakd doctor``'s report."""

from __future__ import annotations

import importlib.metadata
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One line of the report. ``advice`` says what to do; empty where nothing needs to be done."""

    level: Literal["ok", "warning", "error"]
    what: str
    found: str
    advice: str = ""

    def as_object(self) -> dict[str, Any]:
        """For programs."""
        return asdict(self)


def ok(what: str, found: str) -> Check:
    """Nothing needs to be done."""
    return Check(level="ok", what=what, found=found)


def warning(what: str, found: str, advice: str) -> Check:
    """It works, but."""
    return Check(level="warning", what=what, found=found, advice=advice)


def error(what: str, found: str, advice: str) -> Check:
    """It does not work."""
    return Check(level="error", what=what, found=found, advice=advice)


def version(package: str) -> str | None:
    """Of an installed package, or ``None``."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
