"""A pytest plugin that decides how xdist distributes tests to its workers.

The tests of a file run in order on one worker, because they share servers and some depend on earlier tests. Files that
share an expensive fixture go to the same worker, which starts it once. Files that start whole systems run first, so
that no worker runs one of them alone at the end.
"""

from __future__ import annotations

from typing import Any

import pytest

SHARED = {
    "test_whole.py": "the `daybreakd up` of a worker",
    "test_readme.py": "the `daybreakd up` of a worker",
}
"""Files that share an expensive session fixture → the fixture."""


def scheduling_unit(nodeid: str) -> str:
    """The unit that a test is distributed with: its file, or the shared fixture of its file."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file.rpartition("/")[2], file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run files with slow tests first. The sort is stable, so every worker has the same order."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("tiny")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replaces `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scheduling_unit(nodeid)

    return Units(config, log)
