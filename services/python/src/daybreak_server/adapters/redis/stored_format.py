"""The number of the format of what Daybreak stores in Redis: the names of keys and fields, and what they hold.

Builds of one format can run beside each other on the same Redis. A commit that renames a stored key or field, or
changes its meaning, must raise the number, and docs/upgrading.md must name this commit.
"""

from __future__ import annotations

STORED_FORMAT = 1
