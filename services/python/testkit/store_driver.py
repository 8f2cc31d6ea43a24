"""Calls the Lua scripts of one pool directly, with a clock that tests set, and checks every key."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import redis

from daybreak_server.adapters.redis import codec
from daybreak_server.adapters.redis.client import Scripts, connect
from daybreak_server.adapters.redis.key_names import FAMILIES, SINGLE, Keys
from daybreak_server.adapters.redis.lua import (
    claim,
    delete,
    group,
    measure,
    publish_demand,
    renew,
    report,
    settle,
    show,
    submit,
    tick,
)
from daybreak_server.adapters.redis.registry.keys import RegistryKeys
from daybreak_server.adapters.redis.scripts import Call, Library
from daybreak_server.domain import policy
from daybreak_server.domain.changes import Change
from daybreak_server.domain.ids import AttemptToken, GroupId, TaskId
from daybreak_server.domain.names import REGISTRY
from daybreak_server.domain.pool_totals import PoolTotals
from daybreak_server.domain.pools import GroupRecord, GroupState, PoolView, TickReport
from daybreak_server.domain.sessions import SessionId
from daybreak_server.domain.tasks import (
    CheckpointRef,
    Claim,
    Control,
    EventDraft,
    EventRecord,
    Lease,
    NewTask,
    Outcome,
    Settled,
    State,
    TaskRecord,
)
from daybreak_server.ports.store_errors import StoreError
from daybreak_server.ports.tasks import Submitted
from testkit.registry_driver import check_registry_keys
from testkit.session_keys import JOURNAL, check_sessions

CLOCK_KEY = "clock:test"
TEST_CLOCK = f"local function now_ms() return tonumber(redis.call('GET', P .. '{CLOCK_KEY}')) end\n"
START_MS = 1_800_000_000_000


class Driver:
    """One pool on a real server. ``now`` is in ms and only changes when the test sets it."""

    def __init__(
        self, url: str, *, pool: str = "video", lease_s: float = 15.0, target_load: float | None = None
    ) -> None:
        self.keys = Keys(prefix="daybreak", pool=pool)
        self.pool = pool
        self.lease_s = lease_s
        self.target_load = target_load
        self.client: redis.Redis = connect(url, timeout_s=30)
        self.changes: deque[Change] = deque(maxlen=1000)
        """The changes of state that calls have reported."""
        self.scripts = Scripts(self.client, Library(clock_text=TEST_CLOCK), on_change=self.changes.append)
        self.now = START_MS

    @property
    def now(self) -> int:
        return self._now

    @now.setter
    def now(self, value: int) -> None:
        self._now = value
        self.client.set(self.keys.base + CLOCK_KEY, value)

    def run(self, call: Call) -> Any:
        return self.scripts.call(call, idempotent=True)

    def submit(self, task: NewTask, *, max_queued: int = 1_000_000) -> Submitted | StoreError:
        return submit.decode(self.run(submit.encode(self.keys, [task], max_queued=max_queued)), [task])[0]

    def group_record(
        self, name: str, *, ranks: int = 1, drain: bool = False, kept: Sequence[str] = ()
    ) -> GroupRecord:
        return GroupRecord(
            id=GroupId(name),
            state=GroupState.BUSY if kept else GroupState.IDLE,
            ranks=ranks,
            drain=drain,
            tasks=tuple(map(TaskId, kept)),
        )

    def claim(
        self,
        name: str = "g",
        *,
        ranks: int = 1,
        drain: bool = False,
        spec_version: int = 1,
        kept: Sequence[str] = (),
    ) -> Claim | None:
        """Claim a task for a group. ``kept``: the tasks that the group believes it holds."""
        record = self.group_record(name, ranks=ranks, drain=drain, kept=kept)
        while True:
            call = claim.encode(self.keys, [record], lease_s=self.lease_s, spec_version=spec_version)
            reply = self.run(call)[0]
            if claim.outcome(reply) != "again":
                return claim.decode(reply, record.id, lease_s=self.lease_s)

    def renew(self, lease: Lease) -> Control:
        return renew.decode(self.run(renew.encode(self.keys, lease)))

    def report(
        self,
        lease: Lease,
        *events: EventDraft,
        checkpoint: CheckpointRef | None = None,
        **fields: str | int | float,
    ) -> Control:
        return report.decode(
            self.run(report.encode(self.keys, lease, events, checkpoint=checkpoint, fields=fields))
        )

    def settle(self, lease: Lease, outcome: Outcome, *, claim_next: GroupRecord | None = None) -> Settled:
        endings = [(lease, outcome, claim_next)]
        call = settle.encode(self.keys, endings, lease_s=self.lease_s)
        return settle.decode(self.run(call), endings, lease_s=self.lease_s)[0]

    def register(
        self,
        name: str,
        *,
        ttl_s: float = 30,
        fresh: bool = False,
        ranks: int = 1,
        drain: bool = False,
        hosts: tuple[str, ...] = (),
        wake: Mapping[str, float] | None = None,
    ) -> bool:
        state = GroupState.STARTING if fresh else GroupState.IDLE
        record = GroupRecord(
            id=GroupId(name), state=state, ranks=ranks, drain=drain, hosts=hosts, wake=wake or {}
        )
        return bool(group.decode(self.run(group.encode(self.keys, record, ttl_s=ttl_s))))

    def deregister(
        self, name: str, *, died: bool = False, worked_on: Sequence[SessionId] | None = None
    ) -> None:
        if died:
            self.run(group.encode_deregister_dead(self.keys, GroupId(name), worked_on=worked_on))
        else:
            self.run(group.encode_deregister(self.keys, GroupId(name)))

    def drain(self, name: str, *, on: bool = True) -> bool | None:
        return group.decode(self.run(group.encode_drain(self.keys, GroupId(name), on=on)))

    def cordon_hosts(self, *hosts: str, cordoned: bool = True) -> None:
        self.run(group.encode_cordon(self.keys, hosts, cordoned=cordoned))

    def view(self) -> PoolView:
        return group.decode_pool(self.run(group.encode_pool(self.keys)), self.pool)

    def totals(self) -> PoolTotals:
        return measure.decode(self.run(measure.encode(self.keys)), self.pool)

    def publish_demand(self, gateway: str, requests: int, *, ttl_s: float = 3.0) -> int:
        """Publish a gateway's demand, and return the number of groups wanted. The pool must have a ``target_load``."""
        assert self.target_load is not None
        call = publish_demand.encode(self.keys, gateway, requests, ttl_s=ttl_s, target_load=self.target_load)
        return int(self.run(call))

    def tick(self, *, limit: int = tick.LIMIT, tenants_max: int = policy.TENANTS_MAX) -> TickReport:
        call = tick.encode(self.keys, limit=limit, tenants_max=tenants_max, target_load=self.target_load)
        return tick.decode(self.run(call))

    def pass_time(self, ms: int) -> TickReport:
        """Advance the clock in steps of at most a second. Tick after each step, so that the lease clock keeps up."""
        tick_report = self.tick()
        while ms > 0:
            step = min(ms, 1000)
            ms -= step
            self.now += step
            tick_report = self.tick()
        return tick_report

    def cancel(self, task: str, reason: str = "requested") -> TaskRecord | None:
        return show.decode_cancel(self.run(show.encode_cancel(self.keys, TaskId(task), reason)))

    def delete(self, task: str) -> int:
        return int(self.run(delete.encode(self.keys, TaskId(task))))

    def get(self, task: str) -> TaskRecord:
        record = self.get_all([task])[0]
        assert record is not None, f"there is no {task}"
        return record

    def get_all(self, tasks: Sequence[str]) -> list[TaskRecord | None]:
        return show.decode(self.run(show.encode(self.keys, [TaskId(task) for task in tasks])))

    def events(self, task: str, after: str = "") -> list[EventRecord]:
        _, entries = self.run(Call("events", self.keys, (task, after, 10_000)))
        return [codec.own_event(entry, TaskId(task)) for entry in entries]

    def types(self, task: str) -> list[str]:
        return [event.type for event in self.events(task)]

    def zset(self, name: str) -> dict[str, float]:
        return {m.decode(): s for m, s in self.client.zrange(self.keys.single(name), 0, -1, withscores=True)}

    def close(self) -> None:
        self.client.close()


def lease_of(task: str, token: str, group_name: str = "g", lease_s: float = 15.0) -> Lease:
    """A lease with any token, such as that of a zombie."""
    return Lease(task=TaskId(task), token=AttemptToken(token), group=GroupId(group_name), lease_s=lease_s)


def check_keys(client: redis.Redis, *, prefix: str = "daybreak") -> None:
    """Assert that every key is known, has the documented type and TTL, and is not orphaned."""
    names = sorted(key.decode() for key in client.scan_iter(count=1000))
    pools = {name.split("}")[0].partition("{")[2] for name in names}
    for pool in pools - {REGISTRY}:
        _check_pool(client, Keys(prefix=prefix, pool=pool), [name for name in names if f"{{{pool}}}" in name])
    registry = RegistryKeys(prefix=prefix)
    check_registry_keys(client, registry, [name for name in names if name.startswith(registry.base)])


def _check_pool(client: redis.Redis, keys: Keys, names: list[str]) -> None:
    parsed = {name: keys.parse(name) for name in names if not name.endswith(CLOCK_KEY)}
    unknown = [name for name, name_parts in parsed.items() if name_parts is None]
    assert not unknown, f"keys of no known kind: {unknown}"
    members: dict[str, set[str]] = {}
    for family, member in filter(None, parsed.values()):
        members.setdefault(family, set()).add(member)
    tasks = members.get("task", set())
    for family in ("spec", "out", "ev", "preview"):
        orphans = members.get(family, set()) - tasks
        assert not orphans, f"{family} without a record: {orphans}"
    assert members.get("spec", set()) == tasks, "a record without its spec"
    with client.pipeline(transaction=False) as pipe:
        for name in parsed:
            pipe.ttl(name)
            pipe.type(name)
        answers = pipe.execute()
    for (name, name_parts), ttl, kind in zip(parsed.items(), answers[::2], answers[1::2], strict=True):
        assert name_parts is not None
        documented = SINGLE[name_parts[0]] if name_parts[0] in SINGLE else FAMILIES[name_parts[0]].key
        assert kind.decode() == documented.type, f"{name} is a {kind.decode()}"
        if name_parts[0] not in JOURNAL:
            assert (ttl >= 0) == bool(documented.ttl), f"{name} has a TTL of {ttl}"
    check_sessions(client, keys, members)
    _check_members(client, keys, members, tasks)


def _check_members(client: redis.Redis, keys: Keys, members: dict[str, set[str]], tasks: set[str]) -> None:
    with client.pipeline(transaction=False) as pipe:
        for task in sorted(tasks):
            pipe.hget(keys.of("task", task), "state")
        states = [State((value or b"").decode()) for value in pipe.execute()]
    state = dict(zip(sorted(tasks), states, strict=True))
    indexed = {
        member.decode()
        for tenant in members.get("index", set())
        for member in client.zrange(keys.of("index", tenant), 0, -1)
    }
    assert indexed == tasks, "records and indices differ"
    waiting = {
        member.decode()
        for tenant in members.get("wait", set())
        for member in client.zrange(keys.of("wait", tenant), 0, -1)
    }
    held = {name: {m.decode() for m in client.zrange(keys.single(name), 0, -1)} for name in _ZSETS}
    by_state: dict[State, set[str]] = {}
    for task, where in state.items():
        by_state.setdefault(where, set()).add(task)
    queued, delayed = by_state.get(State.QUEUED, set()), by_state.get(State.DELAYED, set())
    assert waiting == queued, "queue entries and queued records differ"
    assert held["tenants"] == members.get("wait", set()), "tenants and queues differ"
    assert held["delayed"] | held["due_soon"] == delayed
    assert not held["delayed"] & held["due_soon"]
    assert held["leases"] == by_state.get(State.RUNNING, set()), "leases and running records differ"
    assert held["live"] == queued | held["due_soon"] | held["leases"], "live is not due + running"
    assert held["timers"] <= queued | delayed
    ended = {task for task, where in state.items() if where.terminal}
    assert held["expiring"] == ended, "ended tasks and the key `expiring` differ"
    assert held["dead"] == by_state.get(State.FAILED, set())
    assert held["groups"] | held["gone"] == members.get("group", set()), (
        "group records and registrations differ"
    )
    for member in members.get("idempotency", set()):
        known = (client.get(keys.of("idempotency", member)) or b"").split(b" ")[0].decode()
        assert known in tasks, f"an idempotency key of the task {known}, which does not exist"
    shares = {field.decode() for field in client.hkeys(keys.single("shares"))}
    assert held["tenants"] <= shares


_ZSETS = ("tenants", "delayed", "due_soon", "timers", "leases", "live", "groups", "gone", "dead", "expiring")
