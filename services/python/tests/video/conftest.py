"""Small pipelines of the Wan 2.2 family with random weights (a few hundred kilobytes each), built once per run."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daybreak_server.workloads.video.pipeline.determinism import CPU_ENVIRONMENT

# These variables are set here too, because `make gpu` loads no other conftest.
for _name, _value in CPU_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # needs the environment above  # noqa: E402
import video_support as support  # imports torch  # noqa: E402

KINDS = ("a14b", "ti2v", "single", "block")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Save a pipeline of each kind. Returns the folder for each kind. ``build_pipeline`` describes the kinds."""
    base = tmp_path_factory.mktemp("pipelines")
    return {kind: support.save_pipeline(base / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Use one OpenMP thread. Waiting threads spin, so on a busy machine two threads are many times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def single(folders: dict[str, Path]) -> Any:
    """Load a workload of one rank with the single-expert pipeline."""
    return support.workload({"model": folders["single"]})
