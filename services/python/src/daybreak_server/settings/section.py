"""The base class of the sections of the settings tree, and a check for rules between their fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

_Section = TypeVar("_Section", bound="Section")


@dataclass(frozen=True, slots=True)
class ComputedDefault:
    """How documentation shows a default that depends on other settings. The names of these settings are in
    angle brackets.

    The default in the field itself applies only to a section that is built without the rest of the tree."""

    text: str


class Section(BaseModel):
    """Settings that belong together. They cannot change, and unknown names are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        validate_default=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,  # the input may be a password
    )


def checked(settings: _Section, problems: Iterable[str]) -> _Section:
    """Return the settings. :raises ValueError: with a line for each problem, if there are any."""
    if found := list(problems):
        raise ValueError("\n".join(found))
    return settings
