"""A pytest plugin: how xdist hands tests to its workers.

The tests of a file run on one worker, in their order: they share servers, and some files tell a story. Files that use
the same expensive thing go to the same worker, which starts it once. Files that start whole systems come first, so
that none is left over for one worker at the end.
"""

from __future__ import annotations

from typing import Any

import pytest

SHARED = {
    "test_whole.py": "the `daybreakd up` of a worker",
    "test_readme.py": "the `daybreakd up` of a worker",
}
"""Files that share a session's fixture which takes long → its name."""


def unit(nodeid: str) -> str:
    """What a test is handed out with."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file.rpartition("/")[2], file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Stable, so every worker has the same order."""
    long = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("tiny")}
    items.sort(key=lambda item: item.path not in long)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """In place of `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return unit(nodeid)

    return Units(config, log)
