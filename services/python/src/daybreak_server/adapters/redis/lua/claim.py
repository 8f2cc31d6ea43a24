"""``claim.lua``: the next task for a group."""

from __future__ import annotations

import secrets
from typing import Any

from daybreak_server.adapters.redis import records
from daybreak_server.adapters.redis.keys import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.ids import GroupId, TaskId, Token
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import SPEC_VERSION, CheckpointRef, Claim, Control, Lease


def arguments(group: GroupRecord, *, lease_s: float, spec_version: int = SPEC_VERSION) -> tuple[Arg, ...]:
    """Who claims, for how long; ``settle`` takes the same."""
    return (
        group.id,
        group.ranks,
        round(lease_s * 1000),
        secrets.token_hex(6),
        spec_version,
        int(group.drain),
    )


def encode(keys: Keys, group: GroupRecord, *, lease_s: float, spec_version: int = SPEC_VERSION) -> Call:
    """One look at the queue."""
    return Call("claim", keys, arguments(group, lease_s=lease_s, spec_version=spec_version))


def outcome(reply: Any) -> str:
    """``task``, ``drain``, ``none`` (nothing waits), ``other`` (not for this group) or ``again``."""
    return records.text(reply[0])


def decode(reply: Any, group: GroupId, *, lease_s: float) -> Claim | None:
    """The claim, or ``None`` where the answer is none."""
    if outcome(reply) != "task":
        return None
    _, task, token, attempt, tenant, spec, checkpoint, step, control = reply
    key = records.text(checkpoint)
    return Claim(
        lease=Lease(
            task=TaskId(records.text(task)), token=Token(records.text(token)), group=group, lease_s=lease_s
        ),
        attempt=int(attempt),
        tenant=records.text(tenant),
        input_json=records.split_spec(records.text(spec))[1],
        checkpoint=CheckpointRef(key=key, step=int(step)) if key else None,
        control=Control(int(control)),
    )
