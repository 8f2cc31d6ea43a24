"""The version of a model depends on its files and on some options, not on where and when the files were stored."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from daybreak_server.workloads.embed.spec import EmbedOptions
from daybreak_server.workloads.text_batches.version import version_of

LARGE = 3_000_000


def version(folder: Path, **options: Any) -> str:
    return version_of(str(folder), EmbedOptions(model=str(folder), **options))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model with a small and a large file. Of the large file, only samples are read."""
    model = tmp_path / "model"
    (model / "pooling").mkdir(parents=True)
    (model / "pooling" / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(bytes(range(250)) * (LARGE // 250))
    return model


def test_a_copy_of_a_model_is_the_same(folder: Path, tmp_path: Path) -> None:
    """Nodes download the model at different times to different folders."""
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    os.utime(copy / "model.safetensors", (0, 0))
    assert version(copy, model_name="x", batching={"mode": "timed"}, cache_mb=3) == version(folder)


def test_other_weights_of_the_same_size_are_another_model(folder: Path) -> None:
    """The weights of two models differ nearly everywhere, even if the headers of their files are equal."""
    before = version(folder)
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000] + bytes(reversed(weights.read_bytes()[1000:])))
    assert weights.stat().st_size == LARGE
    assert version(folder) != before


def test_a_small_file_is_read_as_a_whole(folder: Path) -> None:
    before = version(folder)
    (folder / "pooling" / "config.json").write_text("[]")
    assert version(folder) != before


@pytest.mark.parametrize(
    "options", [{"dtype": "float16"}, {"max_tokens": 8}, {"too_long": "cut"}, {"prompts": {"query": "q: "}}]
)
def test_options_that_change_results_count(folder: Path, options: dict[str, Any]) -> None:
    assert version(folder, **options) != version(folder)
