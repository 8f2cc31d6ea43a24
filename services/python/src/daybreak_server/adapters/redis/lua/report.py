"""``report.lua``: writes events of a running task, fields of its record, and its checkpoint."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from daybreak_server.adapters.redis.arguments import Report, ReportedEvent
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua.renew import decode
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.tasks import CheckpointRef, EventDraft, Lease

__all__ = ["FIELDS", "decode", "encode"]

FIELDS = frozenset({"phase", "fraction", "step", "steps", "eta_s", "resumed_from_step"})
"""The fields of a task's record that a leader may set."""


def encode(
    keys: Keys,
    lease: Lease,
    events: Sequence[EventDraft],
    *,
    checkpoint: CheckpointRef | None,
    fields: Mapping[str, str | int | float],
) -> Call:
    """:raises ValueError: for a field that a leader may not set, or data that JSON cannot hold (NaN)."""
    if unknown := set(fields) - FIELDS:
        raise ValueError(f"a leader may not set the fields {sorted(unknown)}, only {sorted(FIELDS)}")
    args: list[Arg] = list(
        Report(
            task=lease.task,
            token=lease.token,
            lease_ms=round(lease.lease_s * 1000),
            checkpoint=checkpoint.key if checkpoint else "",
            step=checkpoint.step if checkpoint else 0,
            field_count=len(fields),
        )
    )
    for name, value in fields.items():
        args += [name, value if isinstance(value, str) else repr(value)]
    for event in events:
        data = json.dumps(dict(event.data), separators=(",", ":"), allow_nan=False)
        args += ReportedEvent(type=event.type, data=data, number=event.number)
    return Call("report", keys, args)
