"""Limits on what one call of a script reads or keeps. Redis does nothing else while a script runs, so the work of
each call must be bounded.

The scripts receive these numbers, like those of ``domain/policy.py``, through ``prelude.py``.
"""

from __future__ import annotations

# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

RUNNING_BAND = 1 << 52
"""Added to the scores of running tasks in ``live``, so that they sort after all waiting tasks. Waiting tasks
have one band of scores for each priority, each ``PRIORITY_BAND`` wide."""

WAKEUPS_MAX = 64
"""Entries of the wake-up list. Idle leaders beyond this number find their tasks when they poll."""

CLAIM_TENANTS_MAX = 8
"""Tenants whose queues one claim examines."""

CLAIM_TASKS_MAX = 8
"""Tasks that one claim examines in the queue of each tenant."""

EXPIRE_MAX = 50
"""Overdue tasks that one claim expires before it stops."""

# ── estimates ─────────────────────────────────────────────────────────────────────────────────────────────

OTHER_TENANTS_MAX = 32
"""How many tenants the estimate of a task's position examines, in the order in which tenants are served. If more
tenants wait, the position is a lower bound."""

ESTIMATE_GROUPS_MAX = 32
"""Groups that one estimate of a waiting time reads. If a pool has more groups, the estimate assumes that the others
are like those that it has read."""

ETA_TASKS_MAX = 16
"""Running tasks whose remaining time counts for an estimate."""

# ── events ────────────────────────────────────────────────────────────────────────────────────────────────

EVENTS_MAX = 1_000_000
"""Events in a pool's stream; Redis trims it near this length."""

EV_MAX = 1_000
"""Events in a task's own list once it has been trimmed."""

EV_SLACK = 100
"""How many events beyond ``EV_MAX`` a task's own list may have before it is trimmed."""

EV_BATCH_MAX = 500
"""Events in one RPUSH."""

# ── reads ──────────────────────────────────────────────────────────────────────────────────────────

LIST_SCAN_MAX = 1_000
"""Tasks that one page of a filtered list examines."""

GROUPS_MAX = 500
"""Group records that one call reads."""

MEASURED_TENANTS_MAX = 200
"""Tenants whose queues `measure` examines. The tasks of further tenants count under the priority `other`."""

WANTED_MAX = 1_000
"""The most groups that a pool's demand can ask for, and the most workers that models can ask for."""

FAILURE_FIRST_MS = 5_000
"""How long a pool ignores further failures after it has stored one. The ranks of a group end one after the other, and
only the first one knows the cause."""

# ── streaming sessions ────────────────────────────────────────────────────────────────────────────────────

SESSION_EVENTS_MAX = 20_000
"""Entries of the stream with the events for gateways. A gateway that is further behind reads the sessions'
histories."""

SESSION_HISTORY_MAX = 20_000
"""Events that a session keeps; Redis trims its history near this length."""

SESSION_INBOX_MAX = 10_000
"""Entries of a group's inbox. A group that is further behind reads all its sessions."""

SESSION_INBOX_MS = 60_000
"""How long a group's inbox is kept without a renewal."""

SESSION_CLAIM_MAX = 8
"""The most sessions that one claim takes, so that groups share the waiting sessions."""

SESSION_BACKLOG_MAX = 16_000 * 600
"""How many samples of a session may wait for the model."""

SESSION_TEXT_MAX = 1_000_000
"""Bytes of text that the event `ended` carries. If the text is longer, the event carries only the end of the text."""

SESSION_LENGTH_MS = 60_000
"""The assumed length of a session in a pool in which no session has ended yet."""

SESSION_HISTORY_WEIGHT = 0.1
"""The weight of the newest session in the exponentially weighted mean length of a pool's sessions."""

SESSION_ORPHAN_BAND = 10_000_000_000_000
"""A waiting session's place is the time in ms when it was opened. This number, which is larger than any such time, is
subtracted if the session has lost its group. The place is then below 0, before the places of all new sessions."""

SESSION_LOSSES_MAX = 5
"""How many groups in a row a session may lose without completing a turn. One more loss fails the session, because the
session may be what kills the groups."""

SESSION_LIST_MAX = 1_000
"""Sessions that one call lists."""

# ── the registry of workers and models ────────────────────────────────────────────────────────────────────

WORKERS_LOST_MAX = 100
"""Workers whose leases one tick of the registry ends."""

CHANGES_MAX = 100
"""Entries of the registry's stream of changes; Redis trims it near this length. Readers need only the newest."""
