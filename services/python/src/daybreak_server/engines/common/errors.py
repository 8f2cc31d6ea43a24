"""The error that ends a group."""

from __future__ import annotations


class GroupBrokenError(Exception):
    """The ranks can no longer work in lockstep, so the whole group must restart."""
