"""Reads one setting, ``ray.fast_start``, without the settings tree. In a pod, ``ray start`` needs no other setting.

The tree (:mod:`~daybreak_server.settings.tree`) needs pydantic, whose import and models take 0.2 s of CPU time. That is
a fifth of the time that a pod needs to join its Ray cluster. A test checks that this module and the tree read the same
value. If the config file cannot be read, this module ignores the file. The processes that load the whole tree report
the error.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_VARIABLE = "DAYBREAK_RAY__FAST_START"
_CONFIG = "DAYBREAK_CONFIG"
_OFF = frozenset({"0", "off", "f", "false", "n", "no"})
"""What pydantic reads as false. The image's ``ray`` command has the same list."""


def fast_start_allowed(environ: Mapping[str, str]) -> bool:
    """The value of ``ray.fast_start`` for a process with this environment."""
    value: Any = environ.get(_VARIABLE) or _in_file(environ.get(_CONFIG))
    return str(value).lower() not in _OFF


def _in_file(config: str | None) -> Any:
    """The value in the file; ``True`` if there is no file, or it cannot be read, or it does not name the setting."""
    if not config:
        return True
    import yaml

    try:
        tree = yaml.safe_load(Path(config).read_text(encoding="utf-8"))
        return tree["ray"]["fast_start"]
    except (OSError, yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return True
