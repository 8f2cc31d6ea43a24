"""Whole systems for tests; see `support.system`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.system import System


@pytest.fixture(scope="module")
def systems(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., System]]:
    """Starts systems; ends them."""
    made: list[System] = []

    def start(command: str, folder: Path | None = None, **variables: str) -> System:
        made.append(System(command, folder or tmp_path_factory.mktemp("s") / "d", **variables))
        return made[-1]

    yield start
    for one in made:
        one.end()
