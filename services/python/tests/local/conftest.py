"""Fixtures that run a whole Daybreak on this machine; see ``testkit.system``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from testkit.demo_process import DemoProcess
from testkit.system import System


@pytest.fixture(scope="session")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """Run one ``daybreakd up`` for all tests of a pytest-xdist worker. Its start takes half a minute of CPU time.

    The pools ``echo`` and ``video`` have one group of two ranks each. Each test leaves one running group in
    each pool.
    """
    variables = {"HOME": str(tmp_path_factory.mktemp("home"))}
    for pool in ("ECHO", "VIDEO"):
        variables[f"DAYBREAK_POOLS__{pool}__WORKLOAD"] = pool.lower()
        variables[f"DAYBREAK_POOLS__{pool}__RANKS"] = "2"
        variables[f"DAYBREAK_POOLS__{pool}__CPUS_PER_RANK"] = "0.5"
    variables["DAYBREAK_POOLS__VIDEO__CHECKPOINT_S"] = "0.2"
    system = System("up", tmp_path_factory.mktemp("s") / "d", **variables)
    try:
        system.ready(800)
        yield system
    finally:
        system.end()


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """A function that starts a system. All systems end after the module."""
    started: list[System] = []

    def start(command: str, folder: Path | None = None, **variables: str) -> System:
        started.append(System(command, folder or tmp_path_factory.mktemp("s") / "d", **variables))
        return started[-1]

    yield start
    for system in started:
        system.end()


@pytest.fixture
def start_demo(tmp_path: Path) -> Iterator[Callable[..., DemoProcess]]:
    """A function that starts a demo in ``tmp_path``. At the end of the test, no process of a demo may remain."""
    demos: list[DemoProcess] = []

    def start(demo: str, *arguments: str, **variables: str) -> DemoProcess:
        demos.append(DemoProcess(tmp_path, demo, *arguments, **variables))
        return demos[-1]

    yield start
    for demo in demos:
        demo.close()
