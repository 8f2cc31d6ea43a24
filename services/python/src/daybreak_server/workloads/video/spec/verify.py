"""Checks a model folder without torch: ``daybreakd models verify FOLDER``.

A model that was copied only in part, or cloned without Git LFS, would fail only when a group loads it. This check finds
such a fault in a second, because it reads only JSON files and safetensors headers. It does not read the weights (60 GB
and more), so it does not find a flipped bit in them: the download tool must verify their checksums.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from daybreak_server.workloads.video.spec import model_folder
from daybreak_server.workloads.weight_files import Finding, error, weights, worst_first

CLASSES: Final = {
    "transformer": ("WanTransformer3DModel",),
    "transformer_2": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan", "BlockCodec"),
    "text_encoder": ("UMT5EncoderModel",),
    "scheduler": ("UniPCMultistepScheduler",),
}
"""Component → classes that the loader supports. The class of the tokenizer is not checked."""


def verify(folder: Path) -> list[Finding]:
    """Findings about a model folder, worst first. An error keeps a group from loading the model."""
    return worst_first(_findings(Path(folder)))


def _findings(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield error(f"{folder} is not a folder; give the path of a diffusers folder (with model_index.json).")
        return
    try:
        index = model_folder.read_json(folder / "model_index.json")
        info = model_folder.read(folder)
    except model_folder.FolderError as exc:
        yield error(str(exc))
        return
    except (KeyError, TypeError, ValueError) as exc:
        yield error(
            f"a config.json in {folder} has a missing or wrong value ({exc}); fetch the JSON files again."
        )
        return
    yield Finding(
        level="info",
        message=f"{info.family}: {info.layers} layers, {info.heads} heads, {info.experts} expert(s), "
        f"{info.vae_class}, {info.weight_bytes / 1e9:.2f} GB; sizes in multiples of {info.multiple}.",
    )
    for name, classes in CLASSES.items():
        yield from _component(folder, index, name, classes)
    yield from _tokenizer(folder)
    if index.get("boundary_ratio") is not None and info.experts == 1:
        yield error(
            "model_index.json has a boundary_ratio but no transformer_2; fetch the second expert too."
        )


def _component(folder: Path, index: dict[str, Any], name: str, classes: tuple[str, ...]) -> Iterator[Finding]:
    present = model_folder.component_class(index, name)
    if present is None:
        if name != "transformer_2":
            yield error(f"model_index.json has no {name}; fetch a complete Wan pipeline.")
        return
    if present not in classes:
        yield error(f"{name} is a {present}; use a model with {' or '.join(classes)}.")
    if not (folder / name).is_dir():
        yield error(f"{folder / name} is missing; fetch that folder too.")
        return
    if name == "scheduler":
        yield from _json_files(folder / name, "scheduler_config.json")
        return
    yield from _json_files(folder / name, "config.json")
    yield from weights(folder / name)


def _tokenizer(folder: Path) -> Iterator[Finding]:
    yield from _json_files(folder / "tokenizer", "tokenizer_config.json")
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        yield error(f"{folder / 'tokenizer'} has neither tokenizer.json nor spiece.model; fetch one of them.")


def _json_files(folder: Path, *names: str) -> Iterator[Finding]:
    for name in names:
        try:
            model_folder.read_json(folder / name)
        except model_folder.FolderError as exc:
            yield error(str(exc))
