"""The one module where key names are made, for Python and, by :func:`lua_names`, for the scripts.

All keys of a pool carry the hash tag ``{pool}``, so a pool lives in one slot of a Redis Cluster and no script
touches two pools.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from daybreak_server.adapters.redis.limits import EV_MAX, EVENTS_MAX
from daybreak_server.domain.policy import GONE_MS, LEDGER_S


class Key(NamedTuple):
    """What a key is. ``docs/03-queue.md`` shows it, and tests compare it with what servers hold."""

    type: str
    """As Redis's TYPE answers."""
    holds: str
    ttl: str = ""
    """How long it is kept, where the key has a TTL; other keys end with what they hold."""


class Family(NamedTuple):
    """Keys of one kind, with a member's name between ``before`` and ``after``."""

    before: str
    after: str
    of: str
    """What the member is: ``id``, ``tenant``, …"""
    key: Key


SINGLE = {
    "meta": Key("hash", "the pool's numbers: sequence, virtual time, lease clock, history, counters"),
    "events": Key(
        "stream",
        "every event of the pool under the same ids, also for readers with XREADGROUP; "
        f"trimmed near {EVENTS_MAX:,}",
    ),
    "tenants": Key("zset", "tenants with waiting tasks, by virtual time = GPU-seconds / weight"),
    "shares": Key("hash", "the virtual time of each tenant"),
    "weights": Key("hash", "the weight of each tenant whose weight is not 1"),
    "delayed": Key("zset", "tasks that wait for a time, by that time; not live yet"),
    "due_soon": Key("zset", "the same, but live already, because a wake takes about as long as they wait"),
    "timers": Key("zset", "waiting tasks by deadline"),
    "leases": Key("zset", "running tasks by the end of their lease, on the lease clock"),
    "live": Key(
        "zset",
        "due and running tasks: its `ZCARD` is what KEDA reads. "
        "A delayed task enters before it is due, by the time a wake takes",
    ),
    "groups": Key("zset", "groups by the end of their registration, on the lease clock"),
    "gone": Key(
        "zset",
        f"lost groups by when they are forgotten, {GONE_MS // 60_000} minutes later, on the lease clock",
    ),
    "cordoned": Key("zset", "hosts that are about to go: a group on one of them is marked to drain"),
    "operator_report": Key(
        "string", "the operator's report on the pool, as JSON", "until some time after the next report is due"
    ),
    "failure": Key(
        "string",
        "the cause (reason, message) for which a rank ended last, as JSON; deleted when a group becomes ready",
        "10 minutes",
    ),
    "wakeup": Key("list", "tokens that wake idle leaders (BLPOP)"),
    "dead": Key("zset", "failed tasks (dead letters), by time"),
    "expiring": Key("zset", "ended tasks by the end of their retention"),
    "garbage": Key("zset", "prefixes of files to delete, by time"),
}
"""Keys that a pool has once, by name."""

FAMILIES = {
    "task": Family(
        "t:", "", "id", Key("hash", "a task's record: short fields, so that Redis keeps it compact")
    ),
    "spec": Family(
        "t:", ":spec", "id", Key("string", "a task's metadata, trace context and input (≤ 16 KB)")
    ),
    "out": Family(
        "t:", ":out", "id", Key("hash", "what a task has left so far: artifacts, error, checkpoint")
    ),
    "ev": Family(
        "t:",
        ":ev",
        "id",
        Key(
            "list",
            f"a task's events, trimmed near {EV_MAX:,}, without those that its record tells: `queued`, "
            "the first `started` until another event follows, a `succeeded` without artifacts",
        ),
    ),
    "preview": Family(
        "t:",
        ":preview",
        "id",
        Key("string", "a task's latest preview: content type, zero byte, picture", "an hour"),
    ),
    "wait": Family(
        "w:", "", "tenant", Key("zset", "a tenant's waiting tasks by priority and order of submit")
    ),
    "index": Family("by:", "", "tenant", Key("zset", "a tenant's tasks by id, for lists")),
    "group": Family(
        "g:",
        "",
        "id",
        Key(
            "hash",
            "a group's record: state, phase, tasks, ranks, hosts, mark to drain; "
            "of a group that serves requests also endpoint, models, capacity, load",
        ),
    ),
    "idem": Family(
        "idem:",
        "",
        "hash",
        Key(
            "string", "the task that a tenant's idempotency key made in this pool; lives as long as the task"
        ),
    ),
    "ledger": Family(
        "ledger:",
        "",
        "day",
        Key(
            "hash",
            "GPU-milliseconds used and wasted by tenant; a day counts from 1970",
            f"{LEDGER_S // 86_400} days",
        ),
    ),
}
"""Keys that a pool has many of, by what they are of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys of one pool."""

    prefix: str
    pool: str

    @property
    def base(self) -> str:
        """What every key of the pool begins with: ``daybreak:{video}:``. Scripts get it as ``KEYS[1]``."""
        return f"{self.prefix}:{{{self.pool}}}:"

    def one(self, name: str) -> str:
        """The key ``name`` of :data:`SINGLE`."""
        if name not in SINGLE:
            raise KeyError(name)
        return self.base + name

    def of(self, family: str, member: str) -> str:
        """The key of ``member`` in ``family`` of :data:`FAMILIES`."""
        before, after, *_ = FAMILIES[family]
        return f"{self.base}{before}{member}{after}"

    def parse(self, key: str) -> tuple[str, str] | None:
        """The inverse: ``(name, "")`` or ``(family, member)``; ``None`` for a key that is none of ours."""
        if not key.startswith(self.base):
            return None
        rest = key.removeprefix(self.base)
        if rest in SINGLE:
            return rest, ""
        for family in sorted(FAMILIES, key=lambda name: -len(FAMILIES[name].after)):
            before, after, *_ = FAMILIES[family]
            if rest.startswith(before) and rest.endswith(after):
                return family, rest[len(before) : len(rest) - len(after)]
        return None


def lua_names() -> str:
    """Lua definitions of all keys: ``K_live``, ``k_task(id)``; of the pool that ``name_keys`` was last told."""
    singles = sorted(SINGLE)
    lines = ["local P", f"local {', '.join(f'K_{name}' for name in singles)}"]
    for family, (before, after, *_) in sorted(FAMILIES.items()):
        tail = f" .. '{after}'" if after else ""
        lines.append(f"local function k_{family}(x) return P .. '{before}' .. x{tail} end")
    lines += ["local function name_keys(prefix)", "  if prefix == P then return end", "  P = prefix"]
    lines += [f"  K_{name} = P .. '{name}'" for name in singles]
    return "\n".join([*lines, "end"]) + "\n"
