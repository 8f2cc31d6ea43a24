"""Checks files of weights by their safetensors headers. It does not read the weights, and needs no torch.

A model that was copied only in part, or cloned without Git LFS, would fail only when a group loads it. The headers show
such damage in a second. They do not show a flipped bit in the weights: the download tool must verify their checksums.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

Shape = tuple[int, ...]

BITS: Final = {
    "F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I16": 16, "I8": 8, "U8": 8, "BOOL": 8,
    "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "U32": 32, "U64": 64,
}  # fmt: skip

MAX_HEADER: Final = 100_000_000
"""The limit of the safetensors format for its header, in bytes."""

SHOWN: Final = 4
"""Messages name at most this many missing tensors, and at most this many tensors of a wrong shape."""

LFS_POINTER: Final = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One result of the check. The message of an error or a warning says what is wrong and what to do."""

    level: Literal["error", "warning", "info"]
    message: str


def error(message: str) -> Finding:
    """A finding that keeps the model from being loaded."""
    return Finding(level="error", message=message)


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """The findings in the order of their levels."""
    order = ("error", "warning", "info")
    return sorted(findings, key=lambda finding: order.index(finding.level))


def weights(folder: Path) -> Iterator[Finding]:
    """Check that the safetensors files of a folder are complete, that there is an index if there are several files, and
    that the files in the index exist and have the tensors that it lists."""
    files = sorted(folder.glob("*.safetensors"))
    indexes = sorted(folder.glob("*.safetensors.index.json"))
    if not files:
        present = "only pickled .bin weights" if list(folder.glob("*.bin")) else "no weights"
        yield error(f"{folder} has {present}; fetch its *.safetensors files.")
        return
    headers: dict[str, Mapping[str, Shape]] = {}
    for path in files:
        try:
            headers[path.name] = header(path)
        except ValueError as exc:
            yield error(str(exc))
    for index in indexes:
        yield from _against_index(folder, index, headers)
    if not indexes and len(files) > 1:
        yield error(
            f"{folder} has {len(files)} safetensors files but no *.index.json; fetch the index, or remove "
            "the files that do not belong to the model."
        )


def _against_index(
    folder: Path, index: Path, headers: Mapping[str, Mapping[str, Shape]]
) -> Iterator[Finding]:
    try:
        shard_of: dict[str, str] = json.loads(index.read_text())["weight_map"]
    except (OSError, ValueError, KeyError, TypeError) as exc:
        yield error(f"{index} cannot be used ({exc}); fetch it again.")
        return
    for name in sorted(set(shard_of.values())):
        if not (folder / name).is_file():
            yield error(f"{folder / name} is missing, though {index.name} names it; fetch that shard.")
        elif name in headers:
            lacking = {tensor for tensor, file in shard_of.items() if file == name} - set(headers[name])
            if lacking:
                yield error(
                    f"{folder / name} lacks {len(lacking)} tensors, such as {min(lacking)}; fetch it again."
                )
    for name in sorted(set(headers) - set(shard_of.values())):
        yield Finding(level="warning", message=f"{folder / name} is not in {index.name}; you can remove it.")


def header(path: Path) -> dict[str, Shape]:
    """Names and shapes of the tensors in a safetensors file.

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
    return {name: tuple(entry["shape"]) for name, entry in entries.items()}


def against(where: Path, found: Mapping[str, Shape], expected: Mapping[str, Shape]) -> Iterator[Finding]:
    """Check that the tensors of ``where`` have the names and shapes that the model expects."""
    lacking = sorted(set(expected) - set(found))
    if lacking:
        names = ", ".join(lacking[:SHOWN]) + (", …" if len(lacking) > SHOWN else "")
        yield error(f"{where} lacks {len(lacking)} of {len(expected)} tensors: {names}.")
    wrong = [name for name, shape in expected.items() if name in found and found[name] != shape]
    for name in wrong[:SHOWN]:
        yield error(
            f"{where}: the tensor {name} has the shape {list(found[name])}, but the configuration needs "
            f"{list(expected[name])}."
        )
    if len(wrong) > SHOWN:
        yield error(f"{where}: {len(wrong) - SHOWN} more tensors have a wrong shape.")


def _is_consistent(entry: dict[str, Any]) -> bool:
    """Whether a tensor is as long as its shape and dtype need. Unknown dtypes are not checked."""
    start, end = entry["data_offsets"]
    bits = BITS.get(entry["dtype"])
    return bits is None or (end - start) * 8 == math.prod(entry["shape"]) * bits
