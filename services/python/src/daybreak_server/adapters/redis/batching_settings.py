"""An administrator's changes to a pool's settings ``batching`` and ``sessions``.

Each value is a field of its own in the hash ``meta``, so simultaneous changes of two different values do not undo each
other.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from daybreak_server.batching import rules
from daybreak_server.batching.iterations import lag
from daybreak_server.batching.iterations import rules as iteration_rules

_PREFIX = "batching."
_NAMES = tuple(dict.fromkeys((*rules.SETTING_NAMES, *iteration_rules.SETTING_NAMES, *lag.SETTING_NAMES)))
FIELDS = [_PREFIX + name for name in _NAMES]


def encode(changes: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The fields to set, as name, value, name, value, …, and the names of the fields to remove."""
    present = {_PREFIX + name: json.dumps(value) for name, value in changes.items() if value is not None}
    stored = [part for pair in present.items() for part in pair]
    return stored, [_PREFIX + name for name, value in changes.items() if value is None]


def decode(meta: Mapping[str, Any]) -> dict[str, Any]:
    """The changed values, from fields of the hash."""
    return {name: json.loads(stored) for name in _NAMES if (stored := meta.get(_PREFIX + name)) is not None}
