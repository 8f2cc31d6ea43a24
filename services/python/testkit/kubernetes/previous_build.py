"""The older build that the upgrade test starts from."""

from __future__ import annotations

import re
from pathlib import Path

from daybreak_server.adapters.redis.stored_format import STORED_FORMAT

_MODULE = Path("services/python/src/daybreak_server/adapters/redis/stored_format.py")


class IncompatibleBuildError(AssertionError):
    """The previous build is too old to upgrade from."""


def require_compatible_queues(chart: Path) -> None:
    """Check that the build under test can read the queues of the older build whose chart is in the folder ``chart``.

    :param chart: ``<tree>/deploy/helm/daybreak``, where ``<tree>`` is the source tree of the older build.
    :raises IncompatibleBuildError: if the older build stores another format in Redis.
    """
    tree = chart.resolve().parents[2]
    stored = _stored_format(tree / _MODULE)
    if stored != STORED_FORMAT:
        raise IncompatibleBuildError(
            f"{tree} stores format {stored} in Redis, and this build reads format {STORED_FORMAT}, so this build "
            "cannot read its queues. Build a newer commit: make previous PREVIOUS=<commit>."
        )


def _stored_format(module: Path) -> int:
    """The number in an older tree. Trees from before the first numbered format have format 0."""
    found = (
        re.search(r"^STORED_FORMAT = (\d+)$", module.read_text(encoding="utf-8"), re.M)
        if module.exists()
        else None
    )
    return int(found[1]) if found else 0
