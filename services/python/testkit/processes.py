"""Looks at processes that may end at any moment."""

from __future__ import annotations

import psutil


def alive(process: psutil.Process | int) -> bool:
    """Whether the process, or the one with this id, runs. It may end at any moment, and a zombie has ended."""
    try:
        process = psutil.Process(process) if isinstance(process, int) else process
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
