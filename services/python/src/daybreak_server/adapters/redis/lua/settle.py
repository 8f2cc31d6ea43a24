"""``settle.lua``: ends attempts and claims the next tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import Settlement
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.lua import claim
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import (
    Failed,
    Finished,
    Lease,
    Outcome,
    Released,
    Settled,
    State,
)

AttemptEnd = tuple[Lease, Outcome, GroupRecord | None]
"""An attempt, its outcome, and the group that wants the next task (``None`` if no group wants one)."""


def encode(keys: Keys, ends: Sequence[AttemptEnd], *, lease_s: float) -> Call:
    """End attempts, one after the other, and claim a task for each group that wants one."""
    args: list[Arg] = list(claim.terms(lease_s=lease_s))
    for lease, outcome, claim_next in ends:
        args += _settlement(lease, outcome)
        args += claim.NOBODY if claim_next is None else claim.claimant(claim_next, settled=lease.task)
    return Call("settle", keys, args)


def decode(reply: Any, ends: Sequence[AttemptEnd], *, lease_s: float) -> list[Settled]:
    """The result for each attempt. A task that no longer exists counts as cancelled and stale."""
    return [_settled(item, claim_next, lease_s) for item, (_, _, claim_next) in zip(reply, ends, strict=True)]


def _settled(item: Any, claim_next: GroupRecord | None, lease_s: float) -> Settled:
    state = State(codec.text(item[1]) or "cancelled")
    if item[0] == b"stale":
        return Settled(state=state, stale=True)
    next_claim = claim.decode(item[2], claim_next.id, lease_s=lease_s) if claim_next else None
    return Settled(state=state, repeated=item[0] == b"repeated", next=next_claim)


def _settlement(lease: Lease, outcome: Outcome) -> Settlement:
    task, token = lease.task, lease.token
    match outcome:
        case Finished(artifacts=()):
            return Settlement(task, token, "finished", artifacts="[]", described="[]")
        case Finished(artifacts=artifacts):
            stored = _json([asdict(artifact) for artifact in artifacts])
            described = _json([artifact.description() for artifact in artifacts])
            return Settlement(task, token, "finished", artifacts=stored, described=described)
        case Failed(code=code, message=message, permanent=permanent, reason=reason):
            return Settlement(
                task, token, "failed", code=code, message=message, permanent=int(permanent), reason=reason
            )
        case Released(reason=reason):
            return Settlement(task, token, "released", reason=reason)
        case _:
            return Settlement(task, token, "stopped")


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
