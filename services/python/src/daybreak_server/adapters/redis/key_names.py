"""The names of all keys, for Python and, through :func:`lua_names`, for the scripts.

All keys of a pool carry the hash tag ``{pool}``. So a pool lives in one slot of a Redis Cluster, and no script touches
two pools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

from daybreak_server.adapters.redis.limits import (
    EV_MAX,
    EVENTS_MAX,
    SESSION_EVENTS_MAX,
    SESSION_HISTORY_MAX,
    SESSION_INBOX_MAX,
)
from daybreak_server.domain.policy import GONE_MS, LEDGER_S


class Key(NamedTuple):
    """The description of a key. ``docs/03-queue.md`` shows it, and tests compare it with real servers."""

    type: str
    """The answer of Redis's TYPE."""
    holds: str
    ttl: str = ""
    """How long the key is kept, if it has a TTL while it is in use. Other keys are deleted when nothing needs them."""


class Family(NamedTuple):
    """Keys of one kind, named ``<before><member><after>``."""

    before: str
    after: str
    member: str
    """The kind of member: ``id``, ``tenant``, …"""
    key: Key


SINGLE = {
    "meta": Key(
        "hash",
        "the pool's numbers, such as sequence number, virtual time, lease clock and average run time; the routing "
        "policy that `daybreakd routing` has set; and what `PATCH /v1/pools/{name}/batching` has changed",
    ),
    "totals": Key(
        "hash",
        "counts for metrics, nearly all of which only grow: waits, run times, retries, wasted GPU-milliseconds",
    ),
    "tenant_totals": Key(
        "hash",
        "GPU-milliseconds that each tenant has used and wasted, for a limited number of tenants; those of the others "
        "and of deleted tenants are in `totals`",
    ),
    "events": Key(
        "stream",
        f"every event of the pool, under the same ids as in the tasks' lists; at most about {EVENTS_MAX:,}",
    ),
    "tenants": Key("zset", "tenants with waiting tasks, by virtual time (GPU-seconds / weight)"),
    "shares": Key("hash", "the virtual time of each tenant"),
    "weights": Key("hash", "the weight of each tenant whose weight is not 1"),
    "delayed": Key(
        "zset",
        "tasks that wait for their start time or for a retry, by the time at which they are due; not live yet",
    ),
    "due_soon": Key(
        "zset",
        "tasks that wait like those of `delayed`, but will be due before a wake could end; they are live, so that a "
        "group is ready in time",
    ),
    "timers": Key("zset", "waiting tasks by deadline"),
    "leases": Key("zset", "running tasks by the end of their lease, on the lease clock"),
    "live": Key(
        "zset",
        "tasks that are due or running, and those of `due_soon`; KEDA reads its `ZCARD`. Due tasks are sorted by "
        "priority, then by the time at which they last entered the queue",
    ),
    "groups": Key(
        "zset",
        "groups by the time at which their registration expires unless it is refreshed, on the lease clock",
    ),
    "gone": Key(
        "zset",
        "lost groups, by the time at which the pool stops showing them "
        f"({GONE_MS // 60_000} minutes after the loss, on the lease clock)",
    ),
    "cordoned": Key(
        "zset", "hosts that are about to be removed; a group that registers on such a host is marked to drain"
    ),
    "operator_report": Key(
        "string", "the operator's report on the pool, as JSON", "until shortly after the next report is due"
    ),
    "failure": Key(
        "string",
        "why the last failed rank ended (reason, message), as JSON; deleted when a group becomes ready",
        "10 minutes",
    ),
    "demand": Key(
        "hash",
        "the requests that each gateway holds or has sent to groups, and the end of the gateway's lease on this "
        "entry, on the lease clock; only in pools of kind `online`",
    ),
    "wanted": Key(
        "zset",
        "a member for each group that the requests of `demand` or the open sessions need, by the time since which they "
        "need it; KEDA reads its `ZCARD`",
    ),
    "wakeup": Key("list", "wake-ups for idle leaders (BLPOP)"),
    "sessions": Key("zset", "streaming sessions that have not ended, by the time at which they were opened"),
    "sessions_waiting": Key(
        "zset",
        "open streaming sessions that no group owns, by time opened; those that have lost their group come first",
    ),
    "session_leases": Key(
        "zset", "sessions that a group owns, by the end of their lease, on the lease clock"
    ),
    "session_timers": Key(
        "zset",
        "sessions by the end of their timeout. Audio and pings restart the timeout; after the end of the input, the "
        "model's work restarts it instead",
    ),
    "session_tenants": Key("hash", "the tenant of each open session"),
    "session_wakeup": Key("list", "wake-ups for groups with room for a session (BLPOP)"),
    "session_groups": Key(
        "hash",
        "the last measurements of each group of a sessions pool: lag, whether it is full, latency multiplier, room, "
        "how many turns wait for each phase, throughput, the sizes of its batches, and the time at which these "
        "measurements expire, on the lease clock",
    ),
    "session_events": Key(
        "stream",
        "the newest events of all sessions, for the gateways that follow some of them; also a note "
        f"each time audio of a watched session was processed; at most about {SESSION_EVENTS_MAX:,}",
    ),
    "dead": Key("zset", "failed tasks (dead letters), by the time of their failure"),
    "expiring": Key("zset", "ended tasks by the end of their retention"),
    "garbage": Key("zset", "prefixes of files to delete, by the time from which they may be deleted"),
}
"""The keys that a pool has once, by name."""

FAMILIES = {
    "task": Family(
        "t:", "", "id", Key("hash", "a task's record; its values are short, so that Redis keeps it compact")
    ),
    "spec": Family(
        "t:", ":spec", "id", Key("string", "a task's metadata, trace context and input (≤ 16 KB)")
    ),
    "out": Family(
        "t:", ":out", "id", Key("hash", "what a task has produced so far: artifacts, error, checkpoint")
    ),
    "ev": Family(
        "t:",
        ":ev",
        "id",
        Key(
            "list",
            f"a task's events, at most about {EV_MAX:,}. Events that the record already shows are not stored: "
            "`queued`; a `succeeded` without artifacts; and the first `started`, until the next event is stored. (A "
            "`started` that names a wake is stored at once)",
        ),
    ),
    "preview": Family(
        "t:",
        ":preview",
        "id",
        Key("string", "a task's latest preview: content type, zero byte, picture", "an hour"),
    ),
    "wait": Family(
        "w:",
        "",
        "tenant",
        Key("zset", "a tenant's waiting tasks by priority, then in the order of submission"),
    ),
    "index": Family("by:", "", "tenant", Key("zset", "a tenant's tasks by id, for listing")),
    "group": Family(
        "g:",
        "",
        "id",
        Key(
            "hash",
            "a group's record: state, phase, tasks, ranks, hosts, drain mark, the seconds of its wake. The record of a "
            "group that answers requests also has its endpoint, models, capacity and load",
        ),
    ),
    "idempotency": Family(
        "idem:",
        "",
        "hash",
        Key("string", "the task that a tenant created with this idempotency key; kept as long as the task"),
    ),
    "ledger": Family(
        "ledger:",
        "",
        "day",
        Key(
            "hash",
            "GPU-milliseconds that each tenant used and wasted on a day; days count from 1970-01-01",
            f"{LEDGER_S // 86_400} days",
        ),
    ),
    "session": Family(
        "s:",
        "",
        "id",
        Key("hash", "a streaming session's record; kept for `session_timeout_s` after its end"),
    ),
    "session_audio": Family(
        "s:",
        ":audio",
        "id",
        Key(
            "stream",
            "a session's audio that its model still needs; deleted when the session ends. The id of an entry is the "
            "position at which the entry's audio ends, so a group that has the audio up to there can read the rest",
        ),
    ),
    "session_turns": Family(
        "s:",
        ":turns",
        "id",
        Key("list", "the turns of a session's window; deleted when the session ends"),
    ),
    "session_text": Family(
        "s:", ":text", "id", Key("string", "all text of a session; kept as long as its record")
    ),
    "session_history": Family(
        "s:",
        ":events",
        "id",
        Key(
            "stream",
            f"a session's events, at most about {SESSION_HISTORY_MAX:,}; kept as long as its record",
        ),
    ),
    "tenant_sessions": Family(
        "st:", "", "tenant", Key("zset", "a tenant's open sessions, by the time at which they were opened")
    ),
    "group_sessions": Family("sg:", "", "id", Key("set", "the sessions that a group owns")),
    "session_inbox": Family(
        "si:",
        "",
        "nonce",
        Key(
            "stream",
            "which sessions of a group have new audio or were ended, and which it has lost; the group waits for "
            f"entries with one connection. At most about {SESSION_INBOX_MAX:,} entries",
            "a minute after the last renewal",
        ),
    ),
}
"""The keys that a pool has many of, by family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaggedKeys:
    """Keys with one hash tag. A subclass defines the keys and the tag."""

    prefix: str
    singles: ClassVar[Mapping[str, Key]]
    families: ClassVar[Mapping[str, Family]]

    @property
    def tag(self) -> str:
        """The hash tag."""
        raise NotImplementedError

    @property
    def base(self) -> str:
        """The prefix of every key: ``daybreak:{video}:``. Scripts receive it as ``KEYS[1]``."""
        return f"{self.prefix}:{{{self.tag}}}:"

    def single(self, name: str) -> str:
        """The key ``name``, one of :attr:`singles`. :raises KeyError: for another name."""
        if name not in self.singles:
            raise KeyError(name)
        return self.base + name

    def of(self, family: str, member: str) -> str:
        """The key of ``member`` in ``family``."""
        before, after, *_ = self.families[family]
        return f"{self.base}{before}{member}{after}"

    def parse(self, key: str) -> tuple[str, str] | None:
        """What a key is: ``(name, "")`` for a single key, ``(family, member)`` for others; ``None`` if unknown."""
        if not key.startswith(self.base):
            return None
        rest = key.removeprefix(self.base)
        if rest in self.singles:
            return rest, ""
        for family in sorted(self.families, key=lambda name: -len(self.families[name].after)):
            before, after, *_ = self.families[family]
            if rest.startswith(before) and rest.endswith(after):
                return family, rest[len(before) : len(rest) - len(after)]
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys(TaggedKeys):
    """The keys of one pool."""

    pool: str
    singles = SINGLE
    families = FAMILIES

    @property
    def tag(self) -> str:
        """The name of the pool."""
        return self.pool


def _is_of_sessions(name: str) -> bool:
    return "session" in name


def lua_names() -> str:
    """Lua definitions of all keys (``K_live``, ``k_task(id)``) of the pool that ``name_keys`` was last called for.

    The keys of sessions are in the table ``S`` (``S.sessions``, ``S.key.session(id)``), because a chunk of Lua may
    have at most 200 locals. ``prelude.py`` defines the table.
    """
    singles = sorted(name for name in SINGLE if not _is_of_sessions(name))
    of_sessions = sorted(name for name in SINGLE if _is_of_sessions(name))
    lines = ["local P", f"local {', '.join(f'K_{name}' for name in singles)}"]
    for family, (before, after, *_) in sorted(FAMILIES.items()):
        tail = f" .. '{after}'" if after else ""
        name = f"function S.key.{family}" if _is_of_sessions(family) else f"local function k_{family}"
        lines.append(f"{name}(x) return P .. '{before}' .. x{tail} end")
    lines += ["local function name_keys(prefix)", "  if prefix == P then return end", "  P = prefix"]
    lines += [f"  K_{name} = P .. '{name}'" for name in singles]
    lines += [f"  S.{name} = P .. '{name}'" for name in of_sessions]
    return "\n".join([*lines, "end"]) + "\n"
