"""Changes of state that a process makes and reports."""

from __future__ import annotations

from collections.abc import Callable

from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.task_changes import TaskChange

Change = TaskChange | SessionChange
OnChange = Callable[[Change], None]
"""Gets each change. Must not raise."""
