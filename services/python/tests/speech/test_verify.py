"""Tests of ``daybreakd models verify`` for speech translators: it finds each kind of fault, and names the file."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from daybreak_server.cli.main import app
from daybreak_server.workloads.speech.spec import TINY
from daybreak_server.workloads.speech.verify import verify
from testkit.hub_speech_folders import hub_folder
from testkit.speech_models import random_folder

ADAPTER, LANGUAGE = "adapter.safetensors", "language_model/model.safetensors"
KINDS = ("group", "layer", "whisper")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each kind of encoder that transformers defines."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        hub_folder(folder, kind)
    return folders


def errors(folder: Path) -> list[str]:
    return [finding.message for finding in verify(folder) if finding.level == "error"]


@pytest.mark.heavy
@pytest.mark.parametrize("kind", KINDS)
def test_a_complete_folder_of_transformers_passes(hub: dict[str, Path], kind: str) -> None:
    (finding,) = verify(hub[kind])
    assert finding.level == "info"
    assert "English -> Chinese, English -> German" in finding.message


@pytest.mark.parametrize("family", ["llama", "qwen2"])
def test_a_folder_with_the_causal_encoder_passes(tmp_path: Path, family: str) -> None:
    assert [finding.level for finding in verify(random_folder(tmp_path, family=family))] == ["info"]


def test_the_model_of_the_package_passes() -> None:
    assert [finding.level for finding in verify(TINY)] == ["info"]


def test_a_folder_passes_with_extra_tensors_and_with_older_names_of_tensors(
    hub: dict[str, Path], tmp_path: Path
) -> None:
    """Published models often have an ``lm_head``, and many were saved by an older version of torch."""
    folder = shutil.copytree(hub["layer"], tmp_path / "copy")

    def older(name: str) -> str:
        name = name.replace("parametrizations.weight.original0", "weight_g")
        return "wav2vec2." + name.replace("parametrizations.weight.original1", "weight_v")

    found = load_file(folder / "encoder/model.safetensors")
    renamed = {older(name): tensor for name, tensor in found.items()} | {"lm_head.weight": torch.zeros(2, 2)}
    save_file(renamed, folder / "encoder/model.safetensors")
    assert any(name.endswith("weight_g") for name in renamed)
    assert errors(folder) == []


def edit(path: str, *members: str, **change: Any) -> Callable[[Path], object]:
    """Return a function that changes members of an object in a JSON file. The value ``None`` removes a member."""

    def run(folder: Path) -> None:
        content = json.loads((folder / path).read_text())
        inner = content
        for member in members:
            inner = inner[member]
        inner |= change
        for name in [name for name, value in change.items() if value is None]:
            del inner[name]
        (folder / path).write_text(json.dumps(content))

    return run


def tensors(path: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], object]:
    """Return a function that changes the tensors of a file."""

    def run(folder: Path) -> None:
        found = load_file(folder / path)
        change(found)
        save_file(found, folder / path)

    return run


def removed(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).unlink()


BREAKS: list[tuple[Callable[[Path], object], str]] = [
    (removed("config.json"), "config.json is missing"),
    (removed("encoder/preprocessor_config.json"), "preprocessor_config.json is missing"),
    (removed("encoder/config.json"), "encoder/config.json is missing"),
    (removed("encoder/model.safetensors"), "encoder has no weights"),
    (removed(ADAPTER), "adapter.safetensors is missing"),
    (removed(LANGUAGE), "language_model has no weights"),
    (removed("language_model/tokenizer.json"), "language_model has no tokenizer"),
    (
        lambda folder: (folder / ADAPTER).write_bytes(b"version https://git-lfs.github.com/spec/v1"),
        "git lfs pull",
    ),
    (lambda folder: (folder / "config.json").write_text("{"), "not readable JSON"),
    (edit("config.json", encoder=None), "no object 'encoder'"),
    (edit("config.json", "streaming", past_blocks=None), "streaming has no past_blocks"),
    (edit("config.json", "streaming", window="many"), "streaming.window is 'many'"),
    (edit("config.json", "streaming", windows=3), "unknown member windows"),
    (edit("config.json", "streaming", max_turn_blocks="many"), "streaming.max_turn_blocks is 'many'"),
    (edit("config.json", "encoder", type="conformer"), "encoder.type is 'conformer'"),
    (edit("config.json", "encoder", type="whisper"), "model_type is 'wav2vec2'"),
    (edit("config.json", "encoder", stack=5), "no multiple of stack"),
    (edit("config.json", "encoder", left_blocks=None), "encoder.left_blocks must be a whole number"),
    (edit("config.json", "vocabulary", marker=None), "the vocabulary has no 'marker'"),
    (edit("config.json", "vocabulary", ends_turn=["<absent>"]), "no token '<absent>'"),
    (edit("language_model/config.json", model_type="gpt2"), "is a gpt2"),
    (edit("language_model/config.json", hidden_size=None), "has no 'hidden_size'"),
    (edit("language_model/config.json", vocab_size=9), "language model has only 9 tokens"),
    (edit("encoder/config.json", num_hidden_layers=3), "encoder lacks"),
    (
        tensors(ADAPTER, lambda found: found.update({"0.weight": torch.zeros(8, 8)})),
        r"0\.weight has the shape \[8, 8\]",
    ),
    (
        tensors(ADAPTER, lambda found: found.update({"adapter.0.weight": found.pop("0.weight")})),
        r"tensors: 0\.weight\.",
    ),
    (
        tensors(ADAPTER, lambda found: found.update({"4.weight": torch.zeros(2)})),
        r"unknown tensors, such as 4\.weight",
    ),
    (
        tensors(LANGUAGE, lambda found: found.pop("model.layers.1.self_attn.k_proj.bias")),
        r"1\.self_attn\.k_proj\.bias",
    ),
    (
        tensors(LANGUAGE, lambda found: found.update({"lm_head.weight": torch.zeros(3, 48)})),
        r"lm_head\.weight has the shape \[3, 48\]",
    ),
]


@pytest.mark.parametrize(("break_it", "message"), BREAKS, ids=[message for _, message in BREAKS])
def test_each_fault_is_named(
    hub: dict[str, Path], tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    folder = shutil.copytree(hub["layer"], tmp_path / "copy")
    break_it(folder)
    found = errors(folder)
    assert any(re.search(message, error) for error in found), found
    assert all(str(folder) in error for error in found)


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (removed("vocabulary.json"), "vocabulary.json is missing"),
        (edit("vocabulary.json", markers=None), "the vocabulary has no 'markers'"),
        (edit("config.json", "encoder", output=64), "encoder.output is 64"),
        (edit("config.json", "encoder", wide=True), "does not describe an encoder"),
        (tensors("encoder.safetensors", lambda found: found.pop("norm.weight")), "lacks 1 of"),
    ],
)
def test_each_fault_of_the_causal_encoder_is_named(
    tmp_path: Path, break_it: Callable[[Path], object], message: str
) -> None:
    folder = random_folder(tmp_path)
    break_it(folder)
    assert any(message in error for error in errors(folder)), errors(folder)


def test_the_command_checks_the_kind_of_folder_that_it_gets(hub: dict[str, Path], tmp_path: Path) -> None:
    def run(folder: Path) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["models", "verify", str(folder)])
        return result.exit_code, result.output

    code, output = run(hub["layer"])
    assert (code, output.splitlines()[-1]) == (0, f"✓ {hub['layer']} can be loaded")
    code, output = run(tmp_path)
    assert (code, "neither a model_index.json" in output) == (1, True)
    code, output = run(tmp_path / "absent")
    assert (code, "is not a folder" in output) == (1, True)
