"""``claim.lua``: the next task for each of some groups."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.ids import GroupId, TaskId, Token
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import SPEC_VERSION, CheckpointRef, Claim, Control, Lease

NOBODY: tuple[Arg, ...] = ("", "", "", "")
"""In the place of a claimant: nothing is to be claimed."""


def terms(*, lease_s: float, spec_version: int = SPEC_VERSION) -> tuple[Arg, ...]:
    """What all claims of a call have in common; ``settle`` takes the same.

    Their tokens share a nonce, since they are of different tasks, or of different attempts."""
    return round(lease_s * 1000), secrets.token_hex(6), spec_version


def claimant(group: GroupRecord, *, settled: TaskId | None = None) -> tuple[Arg, ...]:
    """Who claims, and the tasks that it has. What the store knows beyond these is of a claim whose answer was lost,
    and goes back. ``settled``: the task that ends in the same call; the group may be given it again."""
    return group.id, group.ranks, int(group.drain), " ".join(one for one in group.tasks if one != settled)


def encode(
    keys: Keys, groups: Sequence[GroupRecord], *, lease_s: float, spec_version: int = SPEC_VERSION
) -> Call:
    """One look at the queue for each group, one after the other."""
    args = list(terms(lease_s=lease_s, spec_version=spec_version))
    for group in groups:
        args += claimant(group)
    return Call("claim", keys, args)


def outcome(item: Any) -> str:
    """``task``, ``drain``, ``none`` (nothing waits), ``other`` (not for this group) or ``again``."""
    return codec.text(item[0])


def decode(item: Any, group: GroupId, *, lease_s: float) -> Claim | None:
    """The claim, or ``None`` where the answer is none."""
    if item[0] != b"task":
        return None
    _, task, token, attempt, tenant, spec, checkpoint, step, control = item
    metadata, trace, input_json = codec.split_spec(spec.decode())
    return Claim(
        lease=Lease(task=TaskId(task.decode()), token=Token(token.decode()), group=group, lease_s=lease_s),
        attempt=int(attempt),
        tenant=tenant.decode(),
        input_json=input_json,
        metadata=metadata,
        trace_context=trace,
        checkpoint=CheckpointRef(key=checkpoint.decode(), step=int(step)) if checkpoint else None,
        control=Control(control),
    )
