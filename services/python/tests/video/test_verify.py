"""Tests of ``daybreakd models verify``: complete folders pass, and each kind of broken copy gives an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from daybreak_server.workloads.video.spec.verify import verify

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"


def errors(folder: Path) -> list[str]:
    return [finding.message for finding in verify(folder) if finding.level == "error"]


@pytest.mark.parametrize("kind", ["a14b", "ti2v", "single"])
def test_a_complete_folder_passes(folders: dict[str, Path], kind: str) -> None:
    """A folder that diffusers has saved gives one line, which describes the model."""
    assert [finding.level for finding in verify(folders[kind])] == ["info"]


def _cut(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1])


def _pointer(folder: Path) -> None:
    (folder / WEIGHTS).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def _garbage(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(b"\x10\0\0\0\0\0\0\0{not json at all")


def _lost_shard(folder: Path) -> None:
    index = {"weight_map": {"a": "diffusion_pytorch_model-00001-of-00002.safetensors"}}
    (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def _edit_index(folder: Path, name: str, value: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    index[name] = value
    (folder / "model_index.json").write_text(json.dumps(index))


BREAKS: list[tuple[Callable[[Path], object], str]] = [
    (_cut, "fetch it again"),
    (_pointer, "git lfs pull"),
    (_garbage, "damaged header"),
    (_lost_shard, "fetch that shard"),
    (lambda f: (f / WEIGHTS).unlink(), "no weights"),
    (lambda f: (f / "model_index.json").unlink(), "model_index.json is missing"),
    (lambda f: (f / "vae/config.json").write_text("{"), "not readable JSON"),
    (lambda f: (f / "vae/config.json").write_text("[]"), "JSON object"),
    (lambda f: (f / "transformer/config.json").write_text("{}"), "fetch the JSON files again"),
    (lambda f: (f / "tokenizer/tokenizer.json").unlink(), "neither tokenizer.json nor spiece.model"),
    (lambda f: (f / "scheduler/scheduler_config.json").unlink(), "scheduler_config.json is missing"),
    (lambda f: shutil.rmtree(f / "text_encoder"), "text_encoder is missing"),
    (lambda f: _edit_index(f, "_class_name", "FluxPipeline"), "is a FluxPipeline"),
    (
        lambda f: _edit_index(f, "scheduler", ["diffusers", "DDIMScheduler"]),
        "use a model with UniPCMultistepScheduler",
    ),
    (lambda f: _edit_index(f, "boundary_ratio", 0.9), "fetch the second expert"),
]


@pytest.mark.parametrize(("break_it", "words"), BREAKS)
def test_a_broken_folder_gives_an_error_that_names_the_fault(
    folders: dict[str, Path], tmp_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    """The message says what is broken, or what to do."""
    folder = tmp_path / "model"
    shutil.copytree(folders["single"], folder)
    break_it(folder)
    assert any(words in message for message in errors(folder)), errors(folder)


def test_a_path_that_is_not_a_folder_gives_an_error(tmp_path: Path) -> None:
    """The message says that the path is not a folder."""
    assert "is not a folder" in errors(tmp_path / "nothing")[0]
