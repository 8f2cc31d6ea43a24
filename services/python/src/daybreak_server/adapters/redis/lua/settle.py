"""``settle.lua``: ends attempts and claims the next tasks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from daybreak_server.adapters.redis import codec
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

Ending = tuple[Lease, Outcome, GroupRecord | None]
"""An attempt, what came of it, and the group that wants the next task."""


def encode(keys: Keys, endings: Sequence[Ending], *, lease_s: float) -> Call:
    """The call that ends attempts, one after the other, and claims what each of them asks for."""
    args = list(claim.terms(lease_s=lease_s))
    for lease, outcome, claim_next in endings:
        args += (lease.task, lease.token)
        args += _outcome(outcome)
        args += claim.NOBODY if claim_next is None else claim.claimant(claim_next, settled=lease.task)
    return Call("settle", keys, args)


def decode(reply: Any, endings: Sequence[Ending], *, lease_s: float) -> list[Settled]:
    """The answers; a task that is gone altogether answers as cancelled and stale."""
    return [
        _settled(item, claim_next, lease_s) for item, (_, _, claim_next) in zip(reply, endings, strict=True)
    ]


def _settled(item: Any, claim_next: GroupRecord | None, lease_s: float) -> Settled:
    state = State(codec.text(item[1]) or "cancelled")
    if item[0] == b"stale":
        return Settled(state=state, stale=True)
    following = claim.decode(item[2], claim_next.id, lease_s=lease_s) if claim_next else None
    return Settled(state=state, next=following)


def _outcome(outcome: Outcome) -> tuple[Arg, ...]:
    match outcome:
        case Finished(artifacts=()):
            return "finished", "[]", "[]", "", ""
        case Finished(artifacts=artifacts):
            stored = [asdict(artifact) for artifact in artifacts]
            shown = [artifact.description() for artifact in artifacts]
            return "finished", _json(stored), _json(shown), "", ""
        case Failed(code=code, message=message, permanent=permanent, reason=reason):
            return "failed", code, message, int(permanent), reason
        case Released(reason=reason):
            return "released", reason, "", "", ""
        case _:
            return "stopped", "", "", "", ""


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
