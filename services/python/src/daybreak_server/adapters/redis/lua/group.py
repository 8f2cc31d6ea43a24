"""``group.lua`` and ``pool.lua``: groups register, leave and are told to drain; a pool's numbers and news."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.limits import GROUPS_MAX
from daybreak_server.adapters.redis.scripts import Call
from daybreak_server.domain.causes import Cause, Reason
from daybreak_server.domain.ids import GroupId
from daybreak_server.domain.pools import (
    CLUSTER_PHASES,
    WAKE_PHASES,
    GroupRecord,
    GroupState,
    PoolReport,
    PoolView,
    WakePhase,
)
from daybreak_server.domain.tasks import State
from daybreak_server.domain.text import storable

CORDON_S = 600.0
"""A host that was closed is about to go; one that is there after this is forgotten, whoever closed it."""
FAILURE_S = 600.0
FAILURE_CHARS = 1000


def encode(keys: Keys, group: GroupRecord, *, ttl_s: float) -> Call:
    """Register or refresh. A group that is ``starting`` holds nothing: what it held before goes back."""
    wake = json.dumps(dict(group.wake))
    fields: dict[str, str | int] = {
        "state": group.state,
        "ranks": group.ranks,
        "phase": group.phase,
        "hosts": json.dumps(group.hosts),
        "pids": json.dumps(group.pids),
        "loads": group.loads,
        "plan": group.plan,
        "detail": storable(group.detail),
        "wake": wake,
        **_serving(group),
    }
    if group.since_ms:
        fields["since"] = group.since_ms
    wake_ms = round(sum(group.wake.values()) * 1000) if group.wake else ""
    head = (
        "register",
        group.id,
        round(ttl_s * 1000),
        int(group.state is GroupState.STARTING),
        int(group.drain),
    )
    return Call("group", keys, (*head, wake_ms, wake, *(part for pair in fields.items() for part in pair)))


def _serving(group: GroupRecord) -> dict[str, str | int]:
    """What only a group that serves requests has; empty text where it does not."""
    return {
        "endpoint": group.endpoint or "",
        "models": json.dumps(group.models) if group.models else "",
        "capacity": "" if group.capacity is None else group.capacity,
        "load": json.dumps(asdict(group.load)) if group.load is not None else "",
    }


def encode_deregister(keys: Keys, group: GroupId) -> Call:
    """The group is gone."""
    return Call("group", keys, ("leave", group))


def encode_drain(keys: Keys, group: GroupId, *, on: bool) -> Call:
    """Set or clear a group's mark to drain."""
    return Call("group", keys, ("drain" if on else "undrain", group))


def encode_cordoned(keys: Keys, hosts: Sequence[str], *, cordoned: bool) -> Call:
    """Hosts on which no group may take tasks from now on, or may again."""
    head = ("close", round(CORDON_S * 1000)) if cordoned else ("open",)
    return Call("group", keys, (*head, *hosts))


def encode_failure(keys: Keys, cause: Cause, *, rank: int) -> Call:
    """Why a rank ended. The message is called ``why``, as an earlier version reads it."""
    text = json.dumps(
        {"rank": rank, "reason": cause.reason, "why": storable(cause.message, chars=FAILURE_CHARS)}
    )
    return Call("group", keys, ("failed", round(FAILURE_S * 1000), text))


def encode_report(keys: Keys, report: PoolReport, *, ttl_s: float) -> Call:
    """What the operator says of the pool. Its whole last wake is kept longer than the rest."""
    last = dict(report.wake_last)
    told = json.dumps(asdict(replace(report, wake_last={})))
    wake = (round(last["total"] * 1000), json.dumps(last)) if "total" in last else ("", "")
    return Call("group", keys, ("tell", round(ttl_s * 1000), told, *wake))


def decode(reply: Any) -> bool | None:
    """Whether the group is marked to drain; ``None`` where a mark was for a group that is not there."""
    return None if int(reply) < 0 else bool(reply)


def encode_pool(keys: Keys) -> Call:
    """A pool's numbers."""
    return Call("pool", keys, ())


def encode_others(keys: Keys, reply: Any) -> list[Call]:
    """For the groups that the answer to :func:`encode_pool` only names: as many at once as one call may read."""
    others = reply[-1]
    return [Call("pool", keys, others[at : at + GROUPS_MAX]) for at in range(0, len(others), GROUPS_MAX)]


def decode_pool(reply: Any, name: str, others: Sequence[Any] = ()) -> PoolView:
    """The pool as it is now. The wake phase is the furthest of its groups that are not ready yet.

    ``others``: the answers to :func:`encode_others`. They hold nothing of a group that has left meanwhile.
    """
    queued, delayed, running, live, oldest_ms, meta_flat, groups_flat, now, told, failure, closed, _ = reply
    meta = codec.mapping(meta_flat)
    groups_flat = [*groups_flat, *(one for page in others for one in page if one[1])]
    groups = tuple(codec.group(group, flat) for group, flat in groups_flat)
    report = PoolReport(**json.loads(told)) if told else None
    phase, since = _wake(groups, report, live=int(live), oldest_ms=int(oldest_ms), now=int(now))
    per_cost = meta.get("seconds_per_cost")
    return PoolView(
        name=name,
        queued=int(queued),
        delayed=int(delayed),
        running=int(running),
        live=int(live),
        oldest_wait_s=int(oldest_ms) / 1000 if int(oldest_ms) >= 0 else None,
        groups=groups,
        seconds_per_cost=float(per_cost) if per_cost else None,
        wake_last=json.loads(meta.get("wake", "{}")),
        wake_phase=phase,
        wake_since_ms=since,
        report=report,
        failure=_failure(json.loads(failure)) if failure else None,
        cordoned=tuple(map(codec.text, cordoned)),
        used_gpu_seconds=int(meta.get("used_ms", 0)) / 1000,
        wasted_gpu_seconds=int(meta.get("wasted_ms", 0)) / 1000,
        ended={state: int(meta.get(f"ended:{state}", 0)) for state in State if state.terminal},
    )


def _failure(stored: Mapping[str, Any]) -> Cause:
    return Cause(reason=stored.get("reason", Reason.RANKS_FAIL), message=stored["why"])


def _wake(
    groups: tuple[GroupRecord, ...], report: PoolReport | None, *, live: int, oldest_ms: int, now: int
) -> tuple[str, int | None]:
    if any(group.state.ready for group in groups):
        return WakePhase.READY, None
    waking = [group for group in groups if group.state is not GroupState.LOST]
    if waking:
        ranked = [
            (WAKE_PHASES.index(WakePhase(g.phase)) if g.phase in WAKE_PHASES else 0, -g.since_ms)
            for g in waking
        ]
        furthest = waking[max(range(len(waking)), key=ranked.__getitem__)]
        return furthest.phase, furthest.since_ms or None
    if report is not None and report.wake_phase in CLUSTER_PHASES:
        return report.wake_phase, report.wake_since_ms
    if live:
        return WakePhase.DETECT, now - oldest_ms if oldest_ms >= 0 else None
    return WakePhase.ZERO, None
