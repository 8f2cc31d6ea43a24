"""The numbers in Daybreak's rules. Each number is defined once, here.

Python modules import the numbers. ``adapters/redis/prelude.py`` gives the Redis scripts those that they need. A test
fails if a Lua file contains such a number itself.
"""

from __future__ import annotations

# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

PRIORITY_BAND = 1 << 50
"""The distance between two priorities in the order of a queue. Larger than any sequence number."""

MAX_QUEUED = 1_000_000
"""The default limit on the waiting tasks of a pool."""

RUN_HISTORY_WEIGHT = 0.2
"""The weight of the newest run in a pool's exponentially weighted run time."""

FIRST_SPEC_VERSION = 1
"""The version of a stored task whose record has no version. This number is part of the stored format, so it never
changes."""

# ── attempts ──────────────────────────────────────────────────────────────────────────────────────────────

MAX_STRIKES = 3
"""The number of strikes with which a task fails, by default. A record does not contain the default, so a new default
would also apply to tasks that are stored already."""

RELEASES_MAX = 50
"""How often a task may be released without a strike. Each further release is a strike."""

GROUP_FAILURES_MAX = 2
"""How many failures of its groups a task may have without a strike. Each further failure is a strike. The limit is
low, because each failure costs the pool a restart."""

BACKOFF_BASE_MS = 1_000
"""The longest delay after the first strike. Each further strike doubles this delay."""

BACKOFF_MAX_MS = 60_000
"""The longest delay after any strike."""

# ── leases ────────────────────────────────────────────────────────────────────────────────────────────────

LEASE_S = 15.0
"""The default length of a lease."""

STALL_S = 120.0
"""The default limit on the time between two steps of a task."""

LOAD_STALL_S = 1800.0
"""The default limit on the time between two signs of progress while the model loads."""

LEASE_STEP_MS = 2_000
"""The most by which one tick advances the lease clock. Leases expire by this clock, so that no lease expires because
of an outage."""

GRACE_MS = 2_000
"""After a gap between ticks longer than ``LEASE_STEP_MS``, no lease expires for this time on the lease clock, so that
holders can renew first."""

GONE_MS = 300_000
"""How long the pool still shows a lost group, on the lease clock."""

# ── files and accounts ────────────────────────────────────────────────────────────────────────────────────

ZOMBIE_MS = 30_000
"""How long the files of a silent attempt are kept. During this time, its leader may still be writing them."""

CLEANUP_RETRY_MS = 60_000
"""A tick reports a due deletion again after this time, unless a gateway has confirmed it."""

DAY_MS = 86_400_000

LEDGER_S = 400 * 86_400
"""How long the ledger of a day's GPU time is kept."""

# ── metrics ───────────────────────────────────────────────────────────────────────────────────────────────

WAIT_BUCKETS_MS = (
    10,
    100,
    1_000,
    5_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    900_000,
    3_600_000,
    14_400_000,
)
"""Upper bounds of the histogram of waits. A count is stored under the position of its bound, so only append bounds."""

RUN_BUCKETS_MS = (
    100,
    1_000,
    5_000,
    15_000,
    30_000,
    60_000,
    120_000,
    300_000,
    600_000,
    1_800_000,
    3_600_000,
    14_400_000,
)
"""Upper bounds of the histogram of run times; only append to it."""

CANCEL_BUCKETS_MS = (100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000, 60_000, 300_000)
"""Upper bounds of the histogram of the time that a running task takes to stop; only append to it."""

CANCEL_STEP_BUCKETS = (0, 1, 2, 5, 10, 100)
"""Upper bounds of the histogram of the steps between a cancel and the end of the task; only append to it."""

RETRY_REASONS = ("error", "stalled", "lease_lost", "released")
"""The reasons of retries and strikes. An unknown reason from a leader counts as ``error``."""

RELEASE_REASONS = ("drain", "stopped", "claim_lost", "restarted", "left", "other")
"""The reasons of releases. An unknown one counts as ``other``."""

TENANTS_MAX = 50
"""How many tenants of a pool may have totals of their own. All others are counted together, as ``other``."""

METER_MS = 5_000
"""The interval, on the lease clock, at which ticks add up the time of groups that are idle, that start, or that answer
requests."""

REQUEST_BODY_MAX_BYTES = 256 << 20
"""The largest body of a request that a group reads. Gateways have a limit of their own, which is smaller by default."""
