"""How much one call of a script reads or keeps. Redis does nothing else while a script runs, so each is bounded.

The scripts get these numbers, as they get those of ``domain/policy.py``, from ``prelude.py``.
"""

from __future__ import annotations

# ── the queue ─────────────────────────────────────────────────────────────────────────────────────────────

RUNNING_BAND = 1 << 52
"""Added to the scores of running tasks in ``live``, so that they sort behind all tasks that wait."""

WAKEUPS_MAX = 64
"""Tokens in the list ``bell``; more idle leaders than this find their tasks by themselves."""

LOOK_TENANTS = 8
"""Tenants whose queues one claim examines."""

LOOK_TASKS = 8
"""Tasks of each of these tenants that one claim examines."""

EXPIRE_MAX = 50
"""Overdue tasks that one claim expires on its way."""

# ── estimates ─────────────────────────────────────────────────────────────────────────────────────────────

CROWD_MAX = 32
"""Other tenants that count for a task's position. With more of them it is a lower bound."""

RUNNING_MAX = 16
"""Running tasks that are asked for the time they have left."""

# ── events ────────────────────────────────────────────────────────────────────────────────────────────────

EVENTS_MAX = 1_000_000
"""Events in a pool's stream; Redis trims it near this length."""

EV_MAX = 1_000
"""Events in a task's own list once it has been trimmed."""

EV_SLACK = 100
"""How far the list may grow beyond that before it is trimmed."""

EV_AT_ONCE = 500
"""Events that one RPUSH may carry."""

# ── what is read ──────────────────────────────────────────────────────────────────────────────────────────

LIST_LOOK = 1_000
"""Tasks that one page of a filtered list examines."""

GROUPS_MAX = 500
"""Records of groups that one call reads."""

FAILURE_FIRST_MS = 5_000
"""The ranks of a group end one after the other and the first one knows why: later reasons are ignored this long."""
