"""Hands the settings of a parent process to its children, as a file."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.settings.tree import Settings


def read_settings(path: Path) -> Settings:
    """What :func:`settings_file` wrote."""
    return Settings.model_validate_json(path.read_text(encoding="utf-8"))
