"""Reads the shape of a model from its diffusers folder (the JSON files and the sizes of the weights), and computes the
fingerprint of the folder.

The API checks requests against the shape, so this module must not import torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from daybreak_server.workloads.base import ModelMissingError

Family = Literal["tiny", "t2v-a14b", "ti2v-5b"]

BUILT_IN: Final = Path(__file__).parents[1] / "tiny" / "model"
"""The folder of the tiny model that Daybreak contains. ``workloads.video.tiny.MODEL_DIR`` is the same path, but this
module must not import ``workloads.video.tiny``."""

SMALL_WIDTH: Final = 1024
"""A model with a smaller inner width counts as tiny: every published Wan is wider."""

SAMPLE_BYTES: Final = 65_536


class FolderError(ModelMissingError, ValueError):
    """The folder has no model that this workload can run. The message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelInfo:
    """The shape of a Wan 2.2 pipeline."""

    family: Family
    heads: int
    width: int
    """Inner width of the transformer: number of heads × size of a head."""
    layers: int
    ffn: int
    patch: tuple[int, int, int]
    spatial: int
    """The VAE's spatial factor: the side of one latent pixel, in pixels of the video."""
    temporal: int
    """Frames of the video in a latent frame; the first latent frame holds only one."""
    rope_max: int
    """The maximum number of token rows, of token columns and of latent frames in the position embedding."""
    experts: int
    expand_timesteps: bool
    vae_class: str
    weight_bytes: int = 0

    @property
    def multiple(self) -> int:
        """Width and height must be multiples of this many pixels: the side of one token."""
        return self.spatial * self.patch[1]


FAMILIES: Final[Mapping[Family, ModelInfo]] = {
    "tiny": ModelInfo(
        family="tiny", heads=8, width=192, layers=6, ffn=512, patch=(1, 2, 2), spatial=8, temporal=4,
        rope_max=1024, experts=1, expand_timesteps=False, vae_class="BlockCodec",
    ),
    "t2v-a14b": ModelInfo(
        family="t2v-a14b", heads=40, width=5120, layers=40, ffn=13824, patch=(1, 2, 2), spatial=8, temporal=4,
        rope_max=1024, experts=2, expand_timesteps=False, vae_class="AutoencoderKLWan",
        weight_bytes=57_000_000_000,
    ),
    "ti2v-5b": ModelInfo(
        family="ti2v-5b", heads=24, width=3072, layers=30, ffn=14336, patch=(1, 2, 2), spatial=16, temporal=4,
        rope_max=1024, experts=1, expand_timesteps=True, vae_class="AutoencoderKLWan",
        weight_bytes=10_000_000_000,
    ),
}  # fmt: skip
"""Published shapes (Wan2.2 repository, ``wan/configs``), for a gateway without the model folder."""


def read(folder: Path) -> ModelInfo:
    """The shape of the model in ``folder``. :raises FolderError: when this workload cannot run it."""
    index = read_json(folder / "model_index.json")
    transformer = read_json(folder / "transformer" / "config.json")
    vae = read_json(folder / "vae" / "config.json")
    expand = bool(index.get("expand_timesteps", False))
    pipeline = index.get("_class_name")
    if pipeline != "WanPipeline" and not (pipeline == "WanImageToVideoPipeline" and expand):
        raise FolderError(
            f"{folder} is a {pipeline}; this workload runs a WanPipeline: use T2V-A14B or TI2V-5B."
        )
    if transformer.get("image_dim") is not None or transformer["in_channels"] != transformer["out_channels"]:
        raise FolderError(
            f"{folder} is an image-to-video model with extra input channels, which is not supported; "
            "use T2V-A14B or TI2V-5B."
        )
    if vae.get("latents_mean") is None and vae.get("_class_name") != "AutoencoderKLWan":
        raise FolderError(
            f"{folder}/vae/config.json lacks latents_mean and latents_std; fetch the file again."
        )
    width = transformer["num_attention_heads"] * transformer["attention_head_dim"]
    experts = 2 if component_class(index, "transformer_2") and index.get("boundary_ratio") is not None else 1
    return ModelInfo(
        family=_family(expand, experts, width),
        heads=transformer["num_attention_heads"],
        width=width,
        layers=transformer["num_layers"],
        ffn=transformer["ffn_dim"],
        patch=_patch(transformer["patch_size"]),
        spatial=vae.get("scale_factor_spatial", 8),
        temporal=vae.get("scale_factor_temporal", 4),
        rope_max=transformer.get("rope_max_seq_len", 1024),
        experts=experts,
        expand_timesteps=expand,
        vae_class=str(vae.get("_class_name")),
        weight_bytes=sum(path.stat().st_size for path in weights(folder)),
    )


def _patch(sizes: Any) -> tuple[int, int, int]:
    frames, height, width = sizes
    if height != 2 or width != 2:
        raise FolderError(
            f"patch_size {sizes} is not supported, because Wan's timesteps are computed only for a patch_size whose "
            "last two numbers are 2; use a model with (1, 2, 2)"
        )
    return int(frames), int(height), int(width)


def _family(expand: bool, experts: int, width: int) -> Family:
    if width < SMALL_WIDTH:
        return "tiny"
    return "ti2v-5b" if expand else "t2v-a14b"


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file. :raises FolderError: with the file and what to do."""
    try:
        value = json.loads(path.read_text())
    except FileNotFoundError as exc:
        raise FolderError(
            f"{path} is missing; copy the whole diffusers folder (git lfs pull fetches it)."
        ) from exc
    except (OSError, ValueError) as exc:
        raise FolderError(f"{path} is not readable JSON ({exc}); fetch the file again.") from exc
    if not isinstance(value, dict):
        raise FolderError(f"{path} must hold a JSON object; fetch the file again.")
    return value


def component_class(index: Mapping[str, Any], name: str) -> str | None:
    """The class of a component in ``model_index.json``; ``None`` if the pipeline has no such component."""
    entry = index.get(name)
    return entry[1] if isinstance(entry, list) and len(entry) == 2 and entry[1] else None


def weights(folder: Path) -> Iterator[Path]:
    """Every safetensors file in a subfolder of the folder, in a fixed order."""
    return iter(sorted(folder.glob("*/*.safetensors")))


def fingerprint(folder: Path) -> str:
    """A digest that distinguishes models, computed without reading all of their weights.

    The digest covers every JSON file. Of each safetensors file, it covers the size, the header, and the first and last
    64 KiB of data. Two fine-tunes of one shape nearly always differ in these parts, and a start does not have to read
    60 GB.
    """
    digest = hashlib.sha256()
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        digest.update(path.read_bytes())
    for path in weights(folder):
        size = path.stat().st_size
        digest.update(f"{path.relative_to(folder)}\0{size}\0".encode())
        with path.open("rb") as file:
            header = int.from_bytes(file.read(8), "little")
            digest.update(file.read(min(header, size) + SAMPLE_BYTES))
            file.seek(max(0, size - SAMPLE_BYTES))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()
