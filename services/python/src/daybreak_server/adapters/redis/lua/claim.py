"""``claim.lua``: claims the next task for each of several groups."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.arguments import Claimant, Terms
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.scripts import Arg, Call
from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.pools import GroupRecord
from daybreak_server.domain.tasks import SPEC_VERSION, CheckpointRef, Claim, Control, Lease

NOBODY = Claimant(group="", ranks=0, draining=0, known="")
"""The claimant in a ``settle`` that claims nothing."""


def terms(*, lease_s: float, spec_version: int = SPEC_VERSION) -> Terms:
    """The arguments that all claims of a call share."""
    return Terms(lease_ms=round(lease_s * 1000), nonce=secrets.token_hex(6), spec_version=spec_version)


def claimant(group: GroupRecord, *, settled: TaskId | None = None) -> Claimant:
    """The group that claims, with the tasks that it says it holds.

    If the store lists another task for the group, the answer to the claim of that task was lost. The store then
    releases that task. ``settled`` is the task that ends in the same call; the group may claim it again.
    """
    known = " ".join(task for task in group.tasks if task != settled)
    return Claimant(group=group.id, ranks=group.ranks, draining=int(group.drain), known=known)


def encode(
    keys: Keys, groups: Sequence[GroupRecord], *, lease_s: float, spec_version: int = SPEC_VERSION
) -> Call:
    """Claim a task for each group, one after the other."""
    args: list[Arg] = list(terms(lease_s=lease_s, spec_version=spec_version))
    for group in groups:
        args += claimant(group)
    return Call("claim", keys, args)


def outcome(item: Any) -> str:
    """``task``, ``drain``, ``none`` (nothing waits), ``other`` (no waiting task is for this group) or ``again``.

    ``again``: many waiting tasks had expired, so the call reached its limit. Call again.
    """
    return codec.text(item[0])


def decode(item: Any, group: GroupId, *, lease_s: float) -> Claim | None:
    """The claim, or ``None`` if the reply has none."""
    if item[0] != b"task":
        return None
    _, task, token, attempt, tenant, spec, checkpoint, step, control, queued = item
    metadata, trace, input_json = codec.split_spec(spec.decode())
    return Claim(
        lease=Lease(
            task=TaskId(task.decode()), token=AttemptToken(token.decode()), group=group, lease_s=lease_s
        ),
        attempt=int(attempt),
        tenant=tenant.decode(),
        input_json=input_json,
        metadata=metadata,
        trace_context=trace,
        checkpoint=CheckpointRef(key=checkpoint.decode(), step=int(step)) if checkpoint else None,
        control=Control(control),
        queued_ms=int(queued),
    )
