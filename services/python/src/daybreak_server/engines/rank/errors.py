"""What breaks a group for good."""

from __future__ import annotations


class GroupBrokenError(Exception):
    """The ranks cannot come to agree any more: the whole group must restart."""
