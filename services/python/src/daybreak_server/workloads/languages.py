"""Pairs of languages that a model translates between."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguagePair:
    """What is spoken, and what is written: codes (``en``, ``de``) and names (``English``, ``German``)."""

    source: str
    target: str
    source_name: str
    target_name: str
