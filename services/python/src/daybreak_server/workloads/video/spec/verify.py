"""Checks a model folder without torch: ``daybreakd models verify FOLDER``.

A folder copied by halves, or cloned without Git LFS, fails hours later on a GPU; here it fails in a second.
Only JSON files and safetensors headers are read, so a flipped bit inside goes unnoticed: a checksum of 60 GB
is the download tool's business.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from daybreak_server.workloads.video.spec import model_folder as folders

CLASSES: Final = {
    "transformer": ("WanTransformer3DModel",),
    "transformer_2": ("WanTransformer3DModel",),
    "vae": ("AutoencoderKLWan", "BlockCodec"),
    "text_encoder": ("UMT5EncoderModel",),
    "scheduler": ("UniPCMultistepScheduler",),
}
"""What the loader makes of each component; the tokenizer may be any fast one."""

BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "U32": 32, "U64": 64,
}  # fmt: skip

MAX_HEADER: Final = 100_000_000
"""The safetensors format's own bound on its header (bytes)."""

LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing about a folder, as a sentence that says what to do where something must be done."""

    level: Literal["error", "warning", "info"]
    message: str


def verify(folder: Path) -> list[Finding]:
    """What there is to say of a model folder, worst first; without an error it can be loaded."""
    found = list(_findings(Path(folder)))
    order = ("error", "warning", "info")
    return sorted(found, key=lambda finding: order.index(finding.level))


def _findings(folder: Path) -> Iterator[Finding]:
    if not folder.is_dir():
        yield _error(
            f"{folder} is not a folder; give the path of a diffusers folder (with model_index.json)."
        )
        return
    try:
        index = folders.read_json(folder / "model_index.json")
        info = folders.read(folder)
    except folders.FolderError as exc:
        yield _error(str(exc))
        return
    except (KeyError, TypeError, ValueError) as exc:
        yield _error(f"a config.json in {folder} lacks or garbles {exc}; fetch the JSON files again.")
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
        yield _error("model_index.json has a boundary_ratio but no transformer_2; fetch the second expert.")


def _component(folder: Path, index: dict[str, Any], name: str, classes: tuple[str, ...]) -> Iterator[Finding]:
    present = folders.component_class(index, name)
    if present is None:
        if name != "transformer_2":
            yield _error(f"model_index.json names no {name}; a Wan pipeline needs one.")
        return
    if present not in classes:
        yield _error(f"{name} is a {present}; this workload loads {' or '.join(classes)}.")
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
            f"{folder / 'tokenizer'} holds neither tokenizer.json nor spiece.model; fetch one of them."
        )


def _json_files(folder: Path, *names: str) -> Iterator[Finding]:
    for name in names:
        try:
            folders.read_json(folder / name)
        except folders.FolderError as exc:
            yield _error(str(exc))


def _weights(folder: Path) -> Iterator[Finding]:
    """Shards named by the index are there, whole, and hold the tensors that the index says."""
    files = sorted(folder.glob("*.safetensors"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not files:
        other = "only pickled .bin weights" if list(folder.glob("*.bin")) else "no weights"
        yield _error(f"{folder} holds {other}; fetch its *.safetensors files.")
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
            f"{folder} has {len(files)} safetensors files but no *.index.json; fetch it, or remove extras."
        )


def _against_index(folder: Path, index: Path, headers: dict[str, set[str]]) -> Iterator[Finding]:
    try:
        where: dict[str, str] = folders.read_json(index)["weight_map"]
    except (folders.FolderError, KeyError) as exc:
        yield _error(f"{index} cannot be used ({exc}); fetch it again.")
        return
    for name in sorted(set(where.values())):
        if not (folder / name).is_file():
            yield _error(f"{folder / name} is missing, though {index.name} names it; fetch that shard.")
        elif name in headers:
            lacking = {tensor for tensor, file in where.items() if file == name} - headers[name]
            if lacking:
                yield _error(
                    f"{folder / name} lacks {len(lacking)} tensors, {min(lacking)} first; fetch it again."
                )
    for name in sorted(set(headers) - set(where.values())):
        yield Finding(level="warning", message=f"{folder / name} is not in {index.name}; it may be removed.")


def header(path: Path) -> set[str]:
    """The tensors a safetensors file holds. :raises ValueError: when it is cut short or not such a file."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if start + file.read(len(LFS_POINTER) - 8) == LFS_POINTER:
            raise ValueError(f"{path} is a Git LFS pointer, not the weights; run git lfs pull.")
        length = int.from_bytes(start, "little")
        if len(start) < 8 or length > min(MAX_HEADER, size - 8):
            raise ValueError(f"{path} is not a whole safetensors file ({size:,} bytes); fetch it again.")
        file.seek(8)
        try:
            tensors = json.loads(file.read(length))
            entries = {name: entry for name, entry in tensors.items() if name != "__metadata__"}
            end = max((entry["data_offsets"][1] for entry in entries.values()), default=0)
            sound = all(map(_sound, entries.values()))
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as exc:
            raise ValueError(f"{path} has a damaged header ({type(exc).__name__}); fetch it again.") from exc
    if size != 8 + length + end or not sound:
        raise ValueError(
            f"{path} has {size:,} bytes where its header says {8 + length + end:,}; fetch it again."
        )
    return set(entries)


def _sound(entry: dict[str, Any]) -> bool:
    """Whether a tensor's place is as long as its shape needs; dtypes we do not know are taken on trust."""
    start, end = entry["data_offsets"]
    bits = BITS.get(entry["dtype"])
    return bits is None or (end - start) * 8 == math.prod(entry["shape"]) * bits


def _error(message: str) -> Finding:
    return Finding(level="error", message=message)
