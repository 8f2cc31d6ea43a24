"""The numbers of the rules, each defined once.

Python imports them from here. The Redis scripts get them from here too, as Lua locals of the same names that
``adapters/redis/prelude.py`` generates; a test refuses a number of a rule that a Lua file spells out by itself.
"""

from __future__ import annotations

# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

PRIORITY_BAND = 1 << 50
"""The distance between two priorities in a queue's order: larger than any sequence number."""

MAX_QUEUED = 1_000_000
"""Waiting tasks of a pool, unless its settings say otherwise."""

RUN_HISTORY_WEIGHT = 0.2
"""The weight of the newest run in a pool's exponentially weighted run time."""

FIRST_SPEC_VERSION = 1
"""A stored task that names no version has this one. Part of the stored format: it never changes."""

# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────

MAX_STRIKES = 3
"""Strikes that end a task, unless it was submitted with another number. Records leave this number out, so a
change of it would change the tasks that are stored already."""

RELEASES_MAX = 50
"""A task that its groups release more often than this gets a strike for each further release."""

GROUP_FAILURES_MAX = 2
"""The releases of a task that may come from groups that failed while they held it. Each of them costs the pool a
restart, so a further one is a strike."""

BACKOFF_BASE_MS = 1_000
"""The longest wait after the first strike; it doubles with each further one."""

BACKOFF_MAX_MS = 60_000
"""The longest wait after any strike."""

# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────

LEASE_S = 15.0
"""How long a lease lasts without renewal, unless the pool's settings say otherwise."""

STALL_S = 120.0
"""The longest time between two steps of a task, unless the pool's settings say otherwise."""

LOAD_STALL_S = 1800.0
"""The same while the model loads."""

LEASE_STEP_MS = 2_000
"""One tick advances the lease clock by at most this, however long nothing ticked: an outage ends no lease."""

GRACE_MS = 2_000
"""After a longer silence no lease ends for this time on the lease clock, so that its holder can renew it first."""

GONE_MS = 300_000
"""How long a lost group is still shown, on the lease clock."""

# ── files and accounts ────────────────────────────────────────────────────────────────────────────────────

ZOMBIE_MS = 30_000
"""The files of an attempt that went silent are kept this long, because its worker may still be writing them."""

HANDED_OUT_MS = 60_000
"""Deletions that a tick hands out are handed out again after this time, unless they were confirmed."""

DAY_MS = 86_400_000

LEDGER_S = 400 * 86_400
"""How long a day's ledger of GPU time is kept."""
