"""Looks at processes that may end at any moment."""

from __future__ import annotations

import psutil


def alive(process: psutil.Process | int) -> bool:
    """Whether the process, or the process with this id, still runs.

    A zombie counts as ended, and so does a process that ends during the check.
    """
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
