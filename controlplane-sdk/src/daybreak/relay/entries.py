"""What an entry of a pool's stream says, and where it stands. As the server's ``adapters/redis`` writes it.

The client may not import the server, so this is said twice; a test compares the two on a real one.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import from_json

from daybreak.wire import Event, EventType
from daybreak.wire.paths import WITH_FILES, public_data

Place = tuple[int, int]
"""An id as a pair that sorts in the order of events."""

NOWHERE: Place = (0, 0)
_KNOWN = {kind.value: kind for kind in EventType}
_check = Event.__pydantic_validator__.validate_python
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


def readable(flat: Sequence[str]) -> bool:
    """Whether an entry looks as the server writes it, of a type that is known; its ``data`` is not decoded for it."""
    return (
        len(flat) == 8
        and flat[0] == "task"
        and flat[2] == "type"
        and flat[3] in _KNOWN
        and flat[4] == "attempt"
        and flat[5].isdecimal()
        and flat[6] == "data"
        and flat[7][:1] == "{"
        and flat[7][-1:] == "}"
    )


def text(entry_id: str, flat: Sequence[str]) -> str | None:
    """The event of a :func:`readable` entry as the API sends it, put together and not decoded; ``None`` where that
    cannot be: files carry a URL that the entry does not have, and nulls are left out."""
    _, task, _, kind, _, attempt, _, data = flat
    if kind in WITH_FILES or "null" in data:
        return None
    ms = int(entry_id.partition("-")[0])
    which = f',"attempt":{int(attempt)}' if attempt != "0" else ""
    at = f"{_second(ms // 1000)}.{ms % 1000:03d}Z"
    return f'{{"id":"{entry_id}","task":"{task}","type":"{kind}","at":"{at}"{which},"data":{data}}}'


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def event(entry_id: str, flat: Sequence[str]) -> Event | None:
    """The event, as the API shows it; ``None`` for a type that this version does not know.

    ``flat``: the entry's fields as the server sends them: name, value, name, value, …

    :raises ValueError: when the entry is not one of Daybreak's.
    """
    fields = dict(zip(flat[::2], flat[1::2]))
    try:
        task, kind = fields["task"], _KNOWN.get(fields["type"])
        if kind is None:
            return None
        # Through the type's own validator: every field is checked, without a call for each event between.
        checked: Event = _check(
            {
                "id": entry_id,
                "task": task,
                "type": kind,
                "at": datetime.fromtimestamp(int(entry_id.partition("-")[0]) / 1000, UTC),
                "attempt": int(fields["attempt"]) or None,
                "data": public_data(task, kind.value, from_json(fields["data"])),
            }
        )
        return checked
    except (KeyError, TypeError, AttributeError) as exc:
        raise ValueError(f"the entry {entry_id} is not an event of Daybreak") from exc
