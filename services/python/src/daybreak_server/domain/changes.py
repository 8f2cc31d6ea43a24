"""Changes of state that a process makes and reports."""

from __future__ import annotations

from collections.abc import Callable

from daybreak_server.domain.session_changes import SessionChange
from daybreak_server.domain.task_changes import TaskChange

Change = TaskChange | SessionChange
OnChange = Callable[[Change], None]
"""A function that gets each change. It must not raise an error."""
