"""Tests that the upgrade test accepts only builds whose queues this build can read."""

from __future__ import annotations

from pathlib import Path

import pytest
from deploy_chart import REPOSITORY

from testkit.kubernetes.previous_build import IncompatibleBuildError, require_compatible_queues

CHART = Path("deploy/helm/daybreak")


@pytest.mark.parametrize("content", [None, "STORED_FORMAT = 0\n", "STORED_FORMAT = 999\n"])
def test_a_build_that_stores_another_format_is_rejected(tmp_path: Path, content: str | None) -> None:
    """The error has the path of the build's source tree and says what to do. Old trees have no number."""
    (tmp_path / CHART).mkdir(parents=True)
    if content is not None:
        module = tmp_path / "services/python/src/daybreak_server/adapters/redis/stored_format.py"
        module.parent.mkdir(parents=True)
        module.write_text(content, encoding="utf-8")
    with pytest.raises(IncompatibleBuildError, match=f"{tmp_path} .* make previous PREVIOUS="):
        require_compatible_queues(tmp_path / CHART)


def test_an_upgrade_from_this_build_is_allowed() -> None:
    require_compatible_queues(REPOSITORY / CHART)
