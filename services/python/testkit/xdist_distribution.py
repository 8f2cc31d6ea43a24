"""A pytest plugin that decides how xdist distributes tests to its workers.

The tests of a file run in order on one worker, because they share servers and some depend on earlier tests. Files that
share an expensive fixture go to the same worker, which starts it once. The longest files run first, and then those
that start whole systems, so that no worker runs one of them alone at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SHARED = {
    "test_whole.py": "the `daybreakd up` of a worker",
    "test_readme.py": "the `daybreakd up` of a worker",
}
"""Files that share an expensive session fixture → the fixture."""

LONGEST = ("observability/test_live.py",)
"""The files that would otherwise end last, longest first. This one takes eight minutes and mostly waits. Files that
need the processor all the time are not among them: beside those that start whole systems, they make these time out."""


def scheduling_unit(nodeid: str) -> str:
    """The unit that a test is distributed with: its file, or the shared fixture of its file."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file.rpartition("/")[2], file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long and slow files first. The sort is stable, so every worker has the same order."""
    slow = {item.path for item in items if item.get_closest_marker("slow") or item.get_closest_marker("tiny")}
    ranks = {path: _rank(path, slow=path in slow) for path in {item.path for item in items}}
    items.sort(key=lambda item: ranks[item.path])


def _rank(path: Path, *, slow: bool) -> int:
    """The place of a file in the order: smaller runs earlier."""
    long = [number for number, name in enumerate(LONGEST) if path.match(name)]
    return long[0] if long else len(LONGEST) + (not slow)


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
