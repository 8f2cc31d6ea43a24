"""A pytest plugin that decides how xdist distributes tests to its workers, with ``--dist loadfile``.

The tests of a file run in order on one worker, because they share servers and some depend on earlier tests. Files that
share an expensive fixture go to the same worker, which starts it once. The longest files run first, so that no worker
runs one of them alone at the end.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

SHARED = {
    "test_whole.py": "the `daybreakd up` of a worker",
    "test_readme.py": "the `daybreakd up` of a worker",
}
"""Files that share an expensive session-scoped fixture → the fixture."""

LONGEST = (
    # of `make test-systems`
    "observability/test_live.py",
    "local/test_readme.py",
    "local/test_whole.py",
    # of `make test`; the files at the end of this list keep a processor busy all the time
    "api/sessions/test_sdk.py",
    "api/sessions/test_stream.py",
    "api/routing/test_proxy.py",
    "observability/test_session_traces.py",
    "engines/sessions/test_sessions_group.py",
    "engines/test_single_rank.py",
    "model_worker/test_agent.py",
    "api/openai/test_openai_client.py",
    "api/openai/test_models.py",
    "workloads/test_embed.py",
    "local/test_sessions_evaluation.py",
    "api/routing/test_failures.py",
    "store/test_sentinel.py",
    "verification/test_exhaustive.py",
    "verification/benchmarks/test_queue.py",
    "controlplane-sdk/tests/test_command_output.py",
    "controlplane-sdk/tests/test_command_files.py",
)
"""The files that would end last without this list. They begin in this order."""


def scheduling_unit(nodeid: str) -> str:
    """The unit that a test is distributed with: its file, or the shared fixture of its file."""
    file = nodeid.partition("::")[0]
    return SHARED.get(file.rpartition("/")[2], file)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run long files first. The sort is stable, so every worker has the same order."""
    ranks = {path: _rank(path) for path in {item.path for item in items}}
    items.sort(key=lambda item: ranks[item.path])


def _rank(path: Path) -> int:
    """The place of a file in the order. Files with smaller numbers run earlier."""
    return next((number for number, name in enumerate(LONGEST) if path.match(name)), len(LONGEST))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Replace the scheduler of `--dist loadfile`."""
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Units(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return scheduling_unit(nodeid)

    return Units(config, log)
