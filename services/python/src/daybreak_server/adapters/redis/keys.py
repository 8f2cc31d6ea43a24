"""The one module where key names are made, for Python and, by :func:`lua_names`, for the scripts.

All keys of a pool carry the hash tag ``{pool}``, so a pool lives in one slot of a Redis Cluster and no script
touches two pools.
"""

from __future__ import annotations

from dataclasses import dataclass

SINGLE = {
    "meta": "numbers of the pool: sequence, virtual time, lease clock, history, counters",
    "events": "stream: every event of the pool",
    "tenants": "zset: tenants with waiting work by virtual time",
    "shares": "hash: virtual time of each tenant",
    "weights": "hash: weight of each tenant whose weight is not 1",
    "delayed": "zset: waiting for their due time, and not yet live",
    "soon": "zset: waiting for their due time, and live because a wake takes about as long",
    "timers": "zset: waiting tasks by deadline",
    "leases": "zset: running tasks by the end of their lease, on the lease clock",
    "live": "zset: due + running; KEDA's ZCARD",
    "groups": "zset: groups by the end of their registration, on the lease clock",
    "gone": "zset: lost groups by when they are forgotten, on the lease clock",
    "closed": "zset: hosts that are about to go by when that is forgotten, on the lease clock",
    "told": "string: what the operator says of the pool, as JSON; with a TTL",
    "failure": "string: why a rank ended last, until a group is ready; with a TTL",
    "bell": "list: wakes idle leaders",
    "dead": "zset: failed tasks by when",
    "sweep": "zset: ended tasks by the end of their retention",
    "garbage": "zset: prefixes of files to delete by when",
}
"""Keys that a pool has once: name → what they hold."""

FAMILIES = {
    "task": ("t:", "", "hash: a task's record, small fields only"),
    "spec": ("t:", ":spec", "string: a task's metadata and input"),
    "out": ("t:", ":out", "hash: what a task has left so far: artifacts, error, checkpoint"),
    "ev": ("t:", ":ev", "list: a task's events, but for those that its record tells"),
    "preview": ("t:", ":preview", "string: content type, zero byte, picture; with a TTL"),
    "wait": ("w:", "", "zset: a tenant's waiting tasks by (priority, order)"),
    "index": ("by:", "", "zset: a tenant's tasks by id"),
    "group": ("g:", "", "hash: a group's record"),
    "idem": (
        "idem:",
        "",
        "string: task and body hash behind a tenant's idempotency key, for as long as the task is kept",
    ),
    "ledger": ("ledger:", "", "hash: GPU-milliseconds used and wasted by tenant, a day"),
}
"""Keys that a pool has many of: name → (before, after, what they hold)."""


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
        before, after, _ = FAMILIES[family]
        return f"{self.base}{before}{member}{after}"

    def parse(self, key: str) -> tuple[str, str] | None:
        """The inverse: ``(name, "")`` or ``(family, member)``; ``None`` for a key that is none of ours."""
        if not key.startswith(self.base):
            return None
        rest = key.removeprefix(self.base)
        if rest in SINGLE:
            return rest, ""
        for family in sorted(FAMILIES, key=lambda name: -len(FAMILIES[name][1])):
            before, after, _ = FAMILIES[family]
            if rest.startswith(before) and rest.endswith(after):
                return family, rest[len(before) : len(rest) - len(after)]
        return None


def lua_names() -> str:
    """Lua definitions of all keys: ``K_live``, ``k_task(id)``; of the pool that ``name_keys`` was last told."""
    singles = sorted(SINGLE)
    lines = ["local P", f"local {', '.join(f'K_{name}' for name in singles)}"]
    for family, (before, after, _) in sorted(FAMILIES.items()):
        tail = f" .. '{after}'" if after else ""
        lines.append(f"local function k_{family}(x) return P .. '{before}' .. x{tail} end")
    lines += ["local function name_keys(prefix)", "  if prefix == P then return end", "  P = prefix"]
    lines += [f"  K_{name} = P .. '{name}'" for name in singles]
    return "\n".join([*lines, "end"]) + "\n"
