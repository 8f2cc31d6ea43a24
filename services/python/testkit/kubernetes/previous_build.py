"""The older build that the upgrade test starts from."""

from __future__ import annotations

from pathlib import Path

_OLDEST = Path("services/python/verification")
"""Every source tree whose build uses the present names of keys in Redis has this folder. A tree without the folder is
older. The build under test cannot read the queues of a build of such a tree."""


class IncompatibleBuildError(AssertionError):
    """The previous build is too old to upgrade from."""


def require_compatible_queues(chart: Path) -> None:
    """Check that the build under test can read the queues of the older build whose chart is in the folder ``chart``.

    :param chart: ``<tree>/deploy/helm/daybreak``, where ``<tree>`` is the source tree of the older build.
    :raises IncompatibleBuildError: if the older build uses other names for the keys in Redis.
    """
    tree = chart.resolve().parents[2]
    if not (tree / _OLDEST).is_dir():
        raise IncompatibleBuildError(
            f"{tree} has no {_OLDEST}: that build has other keys in Redis, so this build cannot read its queues. "
            "Build a newer commit: make previous PREVIOUS=<commit>."
        )
