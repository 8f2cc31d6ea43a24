"""Checks a model folder without torch: ``daybreakd models verify FOLDER``.

A model that was copied only in part, or cloned without Git LFS, would fail hours later on a GPU. This check finds such
a fault in a second, because it reads only JSON files and safetensors headers. It does not read the 60 GB of weights, so
it does not find a flipped bit in them: the download tool must verify their checksums.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from daybreak_server.workloads.video.spec import model_folder

CLASSES: Final = {
    "transformer": ("WanTransformer3DModel",),
    "transformer_2": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan", "BlockCodec"),
    "text_encoder": ("UMT5EncoderModel",),
    "scheduler": ("UniPCMultistepScheduler",),
}
"""Component → classes that the loader supports. The tokenizer may be any fast one."""

BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "U32": 32, "U64": 64,
}  # fmt: skip

MAX_HEADER: Final = 100_000_000
"""The limit of the safetensors format for its header, in bytes."""

LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of the check. The message of an error or a warning says what is wrong and what to do."""

    level: Literal["error", "warning", "info"]
    message: str


def verify(folder: Path) -> list[Finding]:
    """Findings about a model folder, worst first. Without an error, the model can be loaded."""
    findings = list(_findings(Path(folder)))
    order = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def _findings(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield _error(
            f"{folder} is not a folder; give the path of a diffusers folder (with model_index.json)."
        )
        return
    try:
        index = model_folder.read_json(folder / "model_index.json")
        info = model_folder.read(folder)
    except model_folder.FolderError as exc:
        yield _error(str(exc))
        return
    except (KeyError, TypeError, ValueError) as exc:
        yield _error(
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
        yield _error(
            "model_index.json has a boundary_ratio but no transformer_2; fetch the second expert too."
        )


def _component(folder: Path, index: dict[str, Any], name: str, classes: tuple[str, ...]) -> Iterator[Finding]:
    present = model_folder.component_class(index, name)
    if present is None:
        if name != "transformer_2":
            yield _error(f"model_index.json has no {name}; fetch a complete Wan pipeline.")
        return
    if present not in classes:
        yield _error(f"{name} is a {present}; use a model with {' or '.join(classes)}.")
    if not (folder / name).is_dir():
        yield _error(f"{folder / name} is missing; fetch that folder too.")
        return
    if name == "scheduler":
        yield from _json_files(folder / name, "scheduler_config.json")
        return
    yield from _json_files(folder / name, "config.json")
    yield from _weights(folder / name)


def _tokenizer(folder: Path) -> Iterator[Finding]:
    yield from _json_files(folder / "tokenizer", "tokenizer_config.json")
    if not any((folder / "tokenizer" / name).is_file() for name in ("tokenizer.json", "spiece.model")):
        yield _error(
            f"{folder / 'tokenizer'} has neither tokenizer.json nor spiece.model; fetch one of them."
        )


def _json_files(folder: Path, *names: str) -> Iterator[Finding]:
    for name in names:
        try:
            model_folder.read_json(folder / name)
        except model_folder.FolderError as exc:
            yield _error(str(exc))


def _weights(folder: Path) -> Iterator[Finding]:
    """Check that the shards of the index exist, are complete, and have the tensors that the index lists."""
    files = sorted(folder.glob("*.safetensors"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not files:
        present = "only pickled .bin weights" if list(folder.glob("*.bin")) else "no weights"
        yield _error(f"{folder} has {present}; fetch its *.safetensors files.")
        return
    headers: dict[str, set[str]] = {}
    for path in files:
        try:
            headers[path.name] = header(path)
        except ValueError as exc:
            yield _error(str(exc))
    for index in indexes:
        yield from _against_index(folder, index, headers)
    if not indexes and len(files) > 1:
        yield _error(
            f"{folder} has {len(files)} safetensors files but no *.index.json; fetch the index, or remove "
            "the files that do not belong to the model."
        )


def _against_index(folder: Path, index: Path, headers: dict[str, set[str]]) -> Iterator[Finding]:
    try:
        shard_of: dict[str, str] = model_folder.read_json(index)["weight_map"]
    except (model_folder.FolderError, KeyError) as exc:
        yield _error(f"{index} cannot be used ({exc}); fetch it again.")
        return
    for name in sorted(set(shard_of.values())):
        if not (folder / name).is_file():
            yield _error(f"{folder / name} is missing, though {index.name} names it; fetch that shard.")
        elif name in headers:
            lacking = {tensor for tensor, file in shard_of.items() if file == name} - headers[name]
            if lacking:
                yield _error(
                    f"{folder / name} lacks {len(lacking)} tensors, such as {min(lacking)}; fetch it again."
                )
    for name in sorted(set(headers) - set(shard_of.values())):
        yield Finding(level="warning", message=f"{folder / name} is not in {index.name}; you can remove it.")


def header(path: Path) -> set[str]:
    """Names of the tensors in a safetensors file.

    :raises ValueError: when the file is truncated or damaged, or is not a safetensors file.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start + file.read(len(LFS_POINTER) - 8) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the weights; run git lfs pull.")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER, size - 8):
            raise ValueError(f"{path} is not a complete safetensors file ({size:,} bytes); fetch it again.")
        file.seek(8)
        try:
            tensors = json.loads(file.read(length))
            entries = {name: entry for name, entry in tensors.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            consistent = all(map(_is_consistent, entries.values()))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise ValueError(f"{path} has a damaged header ({type(exc).__name__}); fetch it again.") from exc
    if size != 8 + length + end:
        raise ValueError(
            f"{path} has {size:,} bytes, but its header says {8 + length + end:,}; fetch it again."
        )
    if not consistent:
        raise ValueError(f"The header of {path} gives a tensor the wrong length; fetch the file again.")
    return set(entries)


def _is_consistent(entry: dict[str, Any]) -> bool:
    """Whether a tensor is as long as its shape needs. Unknown dtypes are not checked."""
    start, end = entry["data_offsets"]
    bits = BITS.get(entry["dtype"])
    return bits is None or (end - start) * 8 == math.prod(entry["shape"]) * bits


def _error(message: str) -> Finding:
    return Finding(level="error", message=message)
