"""The error that ends a group."""

from __future__ import annotations


class GroupBrokenError(Exception):
    """The ranks can reach no further agreement, so the whole group must restart."""
