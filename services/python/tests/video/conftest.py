"""Pipelines of the Wan 2.2 family, a few hundred kilobytes each, made once a session."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from daybreak_server.workloads.video.pipeline.determinism import CPU_ENVIRONMENT

# Before the first matrix product of the session: MKL reads it once.
for _name, _value in CPU_ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch  # it must find the environment set  # noqa: E402
import video_support as support  # noqa: E402  # torch must find the environment set

KINDS = ("a14b", "ti2v", "single", "block")


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of pipeline: see ``build_pipeline``."""
    base = tmp_path_factory.mktemp("pipelines")
    return {kind: support.save_pipeline(base / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """OpenMP's threads spin while they wait: on a busy machine two are many times slower than one."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def single(folders: dict[str, Path]) -> Any:
    """A loaded workload of one rank on the single-expert pipeline."""
    return support.workload({"model": folders["single"]})
