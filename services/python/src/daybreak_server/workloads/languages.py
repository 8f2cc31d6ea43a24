"""The language that a model hears, and the language that it writes."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePair:
    """The language that is spoken and the one that is written, each as a code (``en``) and a name (``English``)."""

    source: str
    target: str
    source_name: str
    target_name: str
