"""``settle.lua``: ends an attempt and claims the next task."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from daybreak_server.adapters.redis import records
from daybreak_server.adapters.redis.keys import Keys
from daybreak_server.adapters.redis.lua import claim
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import (
    ArtifactRef,
    Failed,
    Finished,
    Lease,
    Outcome,
    Released,
    Settled,
    State,
)

MESSAGE_MAX = 2000
"""Characters of an error's message that are kept."""


def encode(
    keys: Keys,
    lease: Lease,
    outcome: Outcome,
    *,
    claim_next: GroupRecord | None,
    lease_s: float,
) -> Call:
    """The call that ends the attempt of ``lease`` as ``outcome``."""
    args: list[Arg] = [lease.task, lease.token, *_outcome(lease, outcome)]
    if claim_next is not None:
        args += claim.arguments(claim_next, lease_s=lease_s)
    return Call("settle", keys, args)


def decode(reply: Any, claim_next: GroupRecord | None, *, lease_s: float) -> Settled:
    """The answer; a task that is gone altogether answers as cancelled and stale."""
    state = State(records.text(reply[1]) or "cancelled")
    if records.text(reply[0]) == "stale":
        return Settled(state=state, stale=True)
    following = claim.decode(reply[2], claim_next.id, lease_s=lease_s) if claim_next else None
    return Settled(state=state, next=following)


def _outcome(lease: Lease, outcome: Outcome) -> tuple[Arg, ...]:
    match outcome:
        case Finished(artifacts=artifacts):
            stored = [asdict(artifact) for artifact in artifacts]
            shown = [_shown(lease, artifact) for artifact in artifacts]
            return "finished", _json(stored), _json(shown), "", ""
        case Failed(code=code, message=message, permanent=permanent, reason=reason):
            return "failed", code, message[:MESSAGE_MAX], int(permanent), reason
        case Released(reason=reason):
            return "released", reason, "", "", ""
        case _:
            return "stopped", "", "", "", ""


def _shown(lease: Lease, artifact: ArtifactRef) -> dict[str, str | int]:
    """An artifact as clients see it in the ``succeeded`` event: where to get it, not where it is kept."""
    return {
        "name": artifact.name,
        "content_type": artifact.content_type,
        "size_bytes": artifact.size_bytes,
        "sha256": artifact.sha256,
        "url": f"/v1/tasks/{lease.task}/artifacts/{artifact.name}",
    }


def _json(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
