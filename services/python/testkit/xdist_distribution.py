"""A pytest plugin that decides how xdist distributes tests to its workers.

The tests of a file run in order on one worker, because they share servers and some depend on earlier tests. Files that
share an expensive fixture go to the same worker, which starts it once. The longest files run first, then those that
start whole systems, and then those of :data:`LONG`, so that no worker runs one of them alone at the end.

Files that start whole systems need the processor, and most others wait. So only :data:`SYSTEMS_AT_ONCE` workers run
those files at the same time, and the other workers run the others beside them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
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

LONG = (
    "api/sessions/test_sdk.py",
    "api/sessions/test_stream.py",
    "api/routing/test_proxy.py",
    "engines/sessions/test_sessions_group.py",
    "engines/test_single_rank.py",
    "model_worker/test_agent.py",
    "api/openai/test_models.py",
    "local/test_sessions_evaluation.py",
    "api/routing/test_failures.py",
    "store/test_sentinel.py",
    "verification/test_exhaustive.py",
    "verification/benchmarks/test_queue.py",
    "controlplane-sdk/tests/test_command_output.py",
    "controlplane-sdk/tests/test_command_files.py",
)
"""The longest of the files that start no systems. The last ones need the processor all the time."""

SYSTEMS_AT_ONCE = 3
"""So many workers run files that start whole systems. One of them has the first of :data:`LONGEST`."""
_MARKED = re.compile(r"^(@|pytestmark = .*)pytest\.mark\.(slow|tiny)\b", re.MULTILINE)


def scheduling_unit(nodeid: str) -> str:
    """The unit that a test is distributed with: its file, or the shared fixture of its file."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file.rpartition("/")[2], file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long and slow files first. The sort is stable, so every worker has the same order."""
    ranks = {path: _rank(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: ranks[item.path])


def _rank(path: Path) -> int:
    """The place of a file in the order: smaller runs earlier."""
    order = [*LONGEST, "", *LONG]
    named = [number for number, name in enumerate(order) if name and path.match(name)]
    return named[0] if named else len(LONGEST) if starts_systems(path) else len(order)


@cache
def starts_systems(path: Path) -> bool:
    """Whether a file has tests marked ``slow`` or ``tiny``. xdist's controller knows the files, but not the markers."""
    return bool(_MARKED.search(path.read_text()))


def next_unit(waiting: Mapping[str, bool], *, has_system: bool, workers_with_systems: int) -> str:
    """The unit that a worker gets next, of those that wait, in order. The values say which ones start systems.

    :param has_system: The worker itself has a unit that starts systems.
    :param workers_with_systems: Workers that have one.
    """
    if has_system or workers_with_systems < SYSTEMS_AT_ONCE:
        return next(iter(waiting))
    return next((unit for unit, system in waiting.items() if not system), next(iter(waiting)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replaces `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scheduling_unit(nodeid)

        def _assign_work_unit(self, node: Any) -> None:
            """Assigns the first unit that waits. So move the one that the worker shall get to the front."""
            busy = {
                other for other, units in self.assigned_work.items() if any(map(self._runs, units.values()))
            }
            waiting = {unit: self._is_system(tests) for unit, tests in self.workqueue.items()}
            chosen = next_unit(waiting, has_system=node in busy, workers_with_systems=len(busy))
            self.workqueue.move_to_end(chosen, last=False)
            super()._assign_work_unit(node)

        def _runs(self, tests: Mapping[str, bool]) -> bool:
            """Whether a unit starts systems and has not ended."""
            return not all(tests.values()) and self._is_system(tests)

        def _is_system(self, tests: Mapping[str, bool]) -> bool:
            return starts_systems(config.rootpath / next(iter(tests)).partition("::")[0])

    return Units(config, log)
