"""``group.lua`` and ``pool.lua``: registration and draining of groups, and a pool's reports and numbers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from daybreak_server.adapters.redis import batching_settings, codec
from daybreak_server.adapters.redis.arguments import (
    Cordon,
    DeadGroup,
    GroupAction,
    GroupName,
    OperatorReport,
    RankFailure,
    Registration,
)
from daybreak_server.adapters.redis.key_names import Keys
from daybreak_server.adapters.redis.limits import GROUPS_MAX
from daybreak_server.adapters.redis.scripts import Arg, Call
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
from daybreak_server.domain.routing import RoutingPolicy
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.text import storable

CORDON_S = 600.0
"""How long a cordon lasts. A cordoned host is about to be removed. If it still exists after this time, groups may use
it again."""
FAILURE_S = 600.0
"""How long a pool shows why a rank ended, unless a group becomes ready sooner."""
FAILURE_CHARS = 1000
_NOT_IN_JSON = ("wake_passed", "target_load")
"""Fields of a report that are stored outside its JSON: earlier versions refuse JSON with fields unknown to them."""


def encode(keys: Keys, group: GroupRecord, *, ttl_s: float) -> Call:
    """Register a group or refresh its registration.

    If its state is ``starting``, the tasks and sessions that it held before are released.
    """
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
    registration = Registration(
        group=group.id,
        ttl_ms=round(ttl_s * 1000),
        starting=int(group.state is GroupState.STARTING),
        draining=int(group.drain),
        wake_ms=wake_ms,
        wake=wake,
    )
    return _call(keys, "register", *registration, *(part for pair in fields.items() for part in pair))


def _call(keys: Keys, action: str, *args: Arg) -> Call:
    return Call("group", keys, (*GroupAction(action=action), *args))


def _serving(group: GroupRecord) -> dict[str, str | int]:
    """The fields of a group that serves requests; empty for other groups."""
    return {
        "endpoint": group.endpoint or "",
        "models": json.dumps(group.models) if group.models else "",
        "capacity": "" if group.capacity is None else group.capacity,
        "load": json.dumps(asdict(group.load)) if group.load is not None else "",
    }


def encode_deregister(keys: Keys, group: GroupId) -> Call:
    """Remove a group that leaves."""
    return _call(keys, "deregister", *GroupName(group=group))


def encode_deregister_dead(keys: Keys, group: GroupId, *, worked_on: Sequence[SessionId] | None) -> Call:
    """Remove a group and count it as lost. ``worked_on``: the sessions that it worked on last, if they are known."""
    dead = DeadGroup(group=group, known=int(worked_on is not None))
    return _call(keys, "deregister_dead", *dead, *(worked_on or ()))


def encode_drain(keys: Keys, group: GroupId, *, on: bool) -> Call:
    """Set or clear a group's drain mark."""
    return _call(keys, "drain" if on else "undrain", *GroupName(group=group))


def encode_cordon(keys: Keys, hosts: Sequence[str], *, cordoned: bool) -> Call:
    """Cordon or uncordon hosts: groups that register on a cordoned host are marked to drain."""
    if not cordoned:
        return _call(keys, "uncordon", *hosts)
    return _call(keys, "cordon", *Cordon(ttl_ms=round(CORDON_S * 1000)), *hosts)


def encode_failure(keys: Keys, cause: Cause, *, rank: int) -> Call:
    """Store why a rank ended."""
    message = storable(cause.message, chars=FAILURE_CHARS)
    stored = json.dumps({"rank": rank, "reason": cause.reason, "message": message})
    return _call(keys, "report_failure", *RankFailure(ttl_ms=round(FAILURE_S * 1000), cause=stored))


def encode_report(keys: Keys, report: PoolReport, *, ttl_s: float) -> Call:
    """Store the operator's report. The phases of the last complete wake outlast the report's TTL."""
    last = dict(report.wake_last)
    complete = "total" in last
    passed = {phase: report.wake_passed[phase] for phase in CLUSTER_PHASES if phase in report.wake_passed}
    fields = asdict(replace(report, wake_last={}))
    for name in _NOT_IN_JSON:
        del fields[name]
    stored = OperatorReport(
        ttl_ms=round(ttl_s * 1000),
        report=json.dumps(fields),
        wake_ms=round(last["total"] * 1000) if complete else "",
        wake=json.dumps(last) if complete else "",
        waking=json.dumps(passed) if passed else "",
        target_load="" if report.target_load is None else report.target_load,
    )
    return _call(keys, "publish_report", *stored)


def decode(reply: Any) -> bool | None:
    """Whether the group is marked to drain; ``None`` if there is no such group."""
    return None if int(reply) < 0 else bool(reply)


def encode_pool(keys: Keys) -> Call:
    """Read a pool's numbers and groups."""
    return Call("pool", keys, ())


def encode_others(keys: Keys, reply: Any) -> list[Call]:
    """Read the groups of which the reply to :func:`encode_pool` has only the id, at most ``GROUPS_MAX`` per call."""
    others = reply[-1]
    return [Call("pool", keys, others[at : at + GROUPS_MAX]) for at in range(0, len(others), GROUPS_MAX)]


def decode_pool(reply: Any, name: str, others: Sequence[Any] = ()) -> PoolView:
    """The pool as it is now. While no group is ready, the wake phase is that of the group that has come furthest.

    ``others``: the replies to :func:`encode_others`. If a group deregistered after ``reply``, its record in ``others``
    is empty.
    """
    queued, delayed, running, live, oldest_ms, meta_flat, groups_flat, now, *rest = reply
    reported, failure, cordoned, demand, wanted, needed_ms, _ = rest
    meta = codec.mapping(meta_flat)
    groups_flat = [*groups_flat, *(item for page in others for item in page if item[1])]
    groups = tuple(codec.group(group, flat) for group, flat in groups_flat)
    report = PoolReport(**json.loads(reported)) if reported else None
    began = [int(now) - int(ms) for ms in (oldest_ms, needed_ms) if int(ms) >= 0]
    needed = bool(int(live) or int(wanted))
    phase, since = _wake(groups, report, needed=needed, since_ms=min(began, default=None))
    per_cost = meta.get("seconds_per_cost")
    return PoolView(
        name=name,
        queued=int(queued),
        delayed=int(delayed),
        running=int(running),
        live=int(live),
        oldest_wait_s=int(oldest_ms) / 1000 if int(oldest_ms) >= 0 else None,
        groups=groups,
        routing=RoutingPolicy.named(meta.get("routing")),
        batching=batching_settings.decode(meta),
        seconds_per_cost=float(per_cost) if per_cost else None,
        wake_last=json.loads(meta.get("wake", "{}")),
        wake_phase=phase,
        wake_since_ms=since,
        report=report,
        failure=_failure(json.loads(failure)) if failure else None,
        cordoned=tuple(map(codec.text, cordoned)),
        demand=int(demand),
        wanted=int(wanted),
        wanted_for_s=int(needed_ms) / 1000 if int(needed_ms) >= 0 else None,
    )


def _failure(stored: Mapping[str, Any]) -> Cause:
    return Cause(reason=stored.get("reason", Reason.RANKS_FAIL), message=stored["message"])


def _wake(
    groups: tuple[GroupRecord, ...], report: PoolReport | None, *, needed: bool, since_ms: int | None
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
    if needed:
        return WakePhase.DETECT, since_ms
    return WakePhase.ZERO, None
