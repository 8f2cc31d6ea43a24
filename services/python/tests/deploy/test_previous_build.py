"""Tests that the upgrade test accepts only builds whose queues this build can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from deploy_chart import REPOSITORY

from testkit.kubernetes.previous_build import IncompatibleBuildError, require_compatible_queues

CHART = Path("deploy/helm/daybreak")


def test_a_build_with_other_keys_in_redis_is_rejected(tmp_path: Path) -> None:
    """The error has the path of the build's source tree and says what to do."""
    (tmp_path / CHART).mkdir(parents=True)
    (tmp_path / "services/python/faults").mkdir(parents=True)
    with pytest.raises(IncompatibleBuildError, match=f"{tmp_path} .* make previous PREVIOUS="):
        require_compatible_queues(tmp_path / CHART)


def test_an_upgrade_from_this_build_is_allowed() -> None:
    require_compatible_queues(REPOSITORY / CHART)
