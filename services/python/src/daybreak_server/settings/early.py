"""The one setting that ``ray start`` of a pod needs, read without the tree.

The tree (:mod:`~daybreak_server.settings.tree`) needs pydantic, whose import and models take 0.2 s of a processor: a fifth
of what a pod takes to join its Ray. A test compares the two. What cannot be read counts as not given: the processes
that load the whole tree report it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_VARIABLE = "DAYBREAK_RAY__FAST_START"
_CONFIG = "DAYBREAK_CONFIG"
_OFF = frozenset({"0", "off", "f", "false", "n", "no"})
"""Pydantic's words for false; the image's ``ray`` command knows the same."""


def fast_start_allowed(environ: Mapping[str, str]) -> bool:
    """The setting ``ray.fast_start`` of a process with these variables."""
    value: Any = environ.get(_VARIABLE) or _in_file(environ.get(_CONFIG))
    return str(value).lower() not in _OFF


def _in_file(config: str | None) -> Any:
    """What the file says, or ``True``."""
    if not config:
        return True
    import yaml

    try:
        tree = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        return tree["ray"]["fast_start"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError, LookupError, TypeError):
        return True
