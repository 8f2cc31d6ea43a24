"""Reads the settings that a parent process wrote to a file for its children."""

from __future__ import annotations

from pathlib import Path

from daybreak_server.settings.tree import Settings


def read_settings(path: Path) -> Settings:
    """The settings in a file that ``settings_file`` of :mod:`daybreak_server.local.instance` wrote."""
    return Settings.model_validate_json(path.read_text(encoding="utf-8"))
