"""What an entry of a pool's stream says, and where it stands. As the server's ``adapters/redis`` writes it.

The client may not import the server, so this is said twice; a test compares the two on a real one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from daybreak.wire import Event, EventType

Place = tuple[int, int]
"""An id as a pair that sorts in the order of events."""

NOWHERE: Place = (0, 0)
_KNOWN = frozenset(EventType)
_LAST_SEQUENCE = (1 << 64) - 1


def stream_key(prefix: str, pool: str) -> str:
    """The stream with every event of a pool."""
    return f"{prefix}:{{{pool}}}:events"


def place(entry_id: str) -> Place:
    """``"1700000000000-3"`` as a pair."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)


def written(at: Place) -> str:
    """The inverse of :func:`place`."""
    return f"{at[0]}-{at[1]}"


def just_before(at: Place) -> Place:
    """The id right before one."""
    return (at[0], at[1] - 1) if at[1] else (max(0, at[0] - 1), _LAST_SEQUENCE)


def just_behind(at: Place) -> Place:
    """The id right behind one."""
    return at[0], at[1] + 1


def event(entry_id: str, fields: Mapping[str, str]) -> Event | None:
    """The event, as the API shows it; ``None`` for a type that this version does not know.

    :raises ValueError: when the entry is not one of Daybreak's.
    """
    try:
        if fields["type"] not in _KNOWN:
            return None
        return Event(
            id=entry_id,
            task=fields["task"],
            type=EventType(fields["type"]),
            at=datetime.fromtimestamp(place(entry_id)[0] / 1000, UTC),
            attempt=int(fields["attempt"]) or None,
            data=_public(fields["task"], fields["type"], json.loads(fields["data"])),
        )
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the entry {entry_id} is not an event of Daybreak") from exc


def _public(task: str, kind: str, data: dict[str, Any]) -> dict[str, Any]:
    """Files carry a URL and not their place in the store."""
    shown = {name: value for name, value in data.items() if value is not None}
    if kind == EventType.ARTIFACT:
        return _file(task, shown)
    files = shown.get("artifacts")
    if isinstance(files, list):
        shown["artifacts"] = [_file(task, file) for file in files if isinstance(file, dict)]
    elif kind == EventType.SUCCEEDED:
        shown["artifacts"] = []
    return shown


def _file(task: str, file: dict[str, Any]) -> dict[str, Any]:
    shown = {name: value for name, value in file.items() if name != "key"}
    if "name" in shown:
        shown["url"] = f"/v1/tasks/{task}/artifacts/{shown['name']}"
    return shown
