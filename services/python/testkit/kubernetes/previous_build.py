"""The older build that the upgrade test starts from."""

from __future__ import annotations

from pathlib import Path

_OLDEST = Path("services/python/verification")
"""A folder of the oldest build whose queues this one reads. Builds before it have other keys in Redis."""


class IncompatibleBuildError(AssertionError):
    """The previous build is too old to upgrade from."""


def require_compatible_queues(chart: Path) -> None:
    """Check that this build can read the queues of the one whose chart this is (``<tree>/deploy/helm/daybreak``).

    :raises IncompatibleBuildError: if its tree is older than the present names of the keys in Redis.
    """
    tree = chart.resolve().parents[2]
    if not (tree / _OLDEST).is_dir():
        raise IncompatibleBuildError(
            f"{tree} has no {_OLDEST}, so that build is older than the present keys in Redis, and this build cannot "
            "read its queues. Make a newer one: make previous PREVIOUS=<commit>."
        )
