"""The older build that the upgrade test starts from."""

from __future__ import annotations

from pathlib import Path

_OLDEST = Path("services/python/verification")
"""A folder that a source tree has if its build uses the present names of the keys in Redis. This build cannot read the
queues of an older build."""


class IncompatibleBuildError(AssertionError):
    """The previous build is too old to upgrade from."""


def require_compatible_queues(chart: Path) -> None:
    """Check that this build can read the queues of the build with this chart (``<tree>/deploy/helm/daybreak``).

    :raises IncompatibleBuildError: if the tree is older than the present names of the keys in Redis.
    """
    tree = chart.resolve().parents[2]
    if not (tree / _OLDEST).is_dir():
        raise IncompatibleBuildError(
            f"{tree} has no {_OLDEST}: that build has other keys in Redis, so this build cannot read its queues. "
            "Build a newer commit: make previous PREVIOUS=<commit>."
        )
