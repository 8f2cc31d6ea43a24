"""The entries of a pool's stream in Redis, as the server writes them (``adapters/redis``), and their ids.

The client must not import the server, so client and server both define the format. A test compares the two
definitions on a real server.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache

from pydantic_core import from_json

from daybreak.wire import Event, EventType
from daybreak.wire.paths import WITH_FILES, public_data

Position = tuple[int, int]
"""An entry's id as a pair of numbers. The pairs sort in the order of the events."""

BEGINNING: Position = (0, 0)
_KNOWN = {kind.value: kind for kind in EventType}
_check = Event.__pydantic_validator__.validate_python
_LAST_SEQUENCE = (1 << 64) - 1


def stream_key(prefix: str, pool: str) -> str:
    """The key of the stream with every event of a pool."""
    return f"{prefix}:{{{pool}}}:events"


def parse_entry_id(entry_id: str) -> Position:
    """``"1700000000000-3"`` → ``(1700000000000, 3)``."""
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence or 0)


def format_entry_id(position: Position) -> str:
    """The inverse of :func:`parse_entry_id`."""
    return f"{position[0]}-{position[1]}"


def id_before(position: Position) -> Position:
    """The largest id below ``position``."""
    ms, sequence = position
    return (ms, sequence - 1) if sequence else (max(0, ms - 1), _LAST_SEQUENCE)


def id_after(position: Position) -> Position:
    """The smallest id above ``position``."""
    ms, sequence = position
    return ms, sequence + 1


def is_well_formed(flat: Sequence[str]) -> bool:
    """Whether an entry has the server's fields and a known type. Does not decode its ``data``."""
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


def event_json(entry_id: str, flat: Sequence[str]) -> str | None:
    """The JSON of the event of a well-formed entry, built without decoding its ``data``.

    Returns ``None`` if the entry must be decoded: an event with files needs URLs, and a null must be left out.
    """
    _, task, _, kind, _, attempt, _, data = flat
    if kind in WITH_FILES or "null" in data:
        return None
    ms = int(entry_id.partition("-")[0])
    attempt_json = f',"attempt":{int(attempt)}' if attempt != "0" else ""
    at = f"{_format_second(ms // 1000)}.{ms % 1000:03d}Z"
    return f'{{"id":"{entry_id}","task":"{task}","type":"{kind}","at":"{at}"{attempt_json},"data":{data}}}'


@lru_cache(maxsize=64)
def _format_second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def decode_event(entry_id: str, flat: Sequence[str]) -> Event | None:
    """Decode an entry to the event as the API sends it. Returns ``None`` for a type that this version does not know.

    ``flat`` contains the entry's fields as Redis sends them: name, value, name, value, …

    :raises ValueError: if Daybreak did not write the entry.
    """
    # `zip` drops a last name that has no value. Below, a missing field raises a KeyError.
    fields = dict(zip(flat[::2], flat[1::2], strict=False))
    try:
        task, kind = fields["task"], _KNOWN.get(fields["type"])
        if kind is None:
            return None
        # The validator of `Event` checks every field. Calling it directly saves one Python call per event.
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
        raise ValueError(f"entry {entry_id} is not an event of Daybreak") from exc
