"""Which videos a pool can make: bounds and defaults, from model and options. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from daybreak_server.workloads.video.spec import model_folder as folders
from daybreak_server.workloads.video.spec.model_folder import Family, ModelInfo
from daybreak_server.workloads.video.spec.options import VideoOptions

DEFAULTS: Final[Mapping[Family, Mapping[str, Any]]] = {
    "tiny": MappingProxyType(
        {"size": "64x64", "frames": 17, "fps": 8, "steps": 20, "guidance": 3.0, "shift": 3.0}
    ),
    # Wan2.2 repository, wan/configs/wan_t2v_A14B.py and wan_ti2v_5B.py.
    "t2v-a14b": MappingProxyType(
        {
            "size": "1280x720",
            "frames": 81,
            "fps": 16,
            "steps": 40,
            "guidance": 4.0,
            "guidance_2": 3.0,
            "shift": 12.0,
        }
    ),
    "ti2v-5b": MappingProxyType(
        {"size": "1280x704", "frames": 121, "fps": 24, "steps": 50, "guidance": 5.0, "shift": 5.0}
    ),
}

BOUNDS: Final[Mapping[Family, tuple[int, int, int]]] = {
    "tiny": (512, 121, 200),
    "t2v-a14b": (1920, 161, 100),
    "ti2v-5b": (1920, 241, 100),
}
"""Longest side in pixels, most frames, most steps."""

GIB: Final = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds and defaults of one pool, as ``VideoParams`` checks them."""

    family: Family
    multiple: int
    """Width and height are multiples of this (pixels): VAE scale × patch."""
    temporal: int
    """Frames are ``temporal`` × n + 1."""
    max_side: int
    max_frames: int
    max_steps: int
    max_tokens: int
    max_tokens_reason: str
    takes_image: bool
    two_experts: bool
    defaults: Mapping[str, Any]

    def tokens(self, width: int, height: int, frames: int) -> int:
        """How many patches the transformer sees for a video."""
        return (width // self.multiple) * (height // self.multiple) * ((frames - 1) // self.temporal + 1)


TINY: Final = folders.FAMILIES["tiny"]


def of_model(info: ModelInfo, options: VideoOptions) -> Limits:
    """The limits of a model of this shape under a pool's options."""
    side, frames, steps = BOUNDS[info.family]
    own = options.limits
    max_side = min(own.max_side or side, info.rope_max * info.multiple)
    max_frames = min(own.max_frames or frames, info.temporal * (info.rope_max - 1) + 1)
    most = (max_side // info.multiple) ** 2 * ((max_frames - 1) // info.temporal + 1)
    reason = "the limit of this pool"
    if own.max_tokens:
        most = min(most, own.max_tokens)
    fits = tokens_that_fit(info, options)
    if fits is not None and fits < most:
        most, reason = fits, f"what fits in {options.gpu_memory_gib:g} GiB of GPU memory"
    return Limits(
        family=info.family,
        multiple=info.multiple,
        temporal=info.temporal,
        max_side=max_side,
        max_frames=max_frames,
        max_steps=own.max_steps or steps,
        max_tokens=most,
        max_tokens_reason=reason,
        takes_image=info.expand_timesteps,
        two_experts=info.experts == 2,
        defaults=DEFAULTS[info.family],
    )


def tokens_that_fit(info: ModelInfo, options: VideoOptions) -> int | None:
    """Roughly how many tokens one GPU's memory holds; None when its size is not known.

    Weights that stay (half of two experts, one part of all, with offloading) plus, for each token, the widest
    float32 activations of a block: the feed-forward's hidden layer and eight times the width. An estimate
    that refuses what can never run, not a promise that the rest does.
    """
    if options.gpu_memory_gib is None:
        return None
    resident = {"none": 1.0, "model": 1.0 / info.experts, "group": 0.1}[options.offload]
    free = options.gpu_memory_gib * GIB - info.weight_bytes * resident
    per_token = 4 * (info.ffn + 8 * info.width)
    return max(0, int(free / per_token))


def limits(options: Mapping[str, Any]) -> Limits:
    """The limits of a pool with these options; the model's folder is read once per change of its index."""
    parsed = VideoOptions.model_validate(options)
    index = parsed.folder / "model_index.json"
    try:
        changed = index.stat().st_mtime_ns
    except OSError:
        # A gateway serves pools whose model lies only on the workers.
        return of_model(folders.FAMILIES[parsed.assumed_family], parsed)
    return of_model(_read(str(parsed.folder), changed), parsed)


@lru_cache(maxsize=64)
def _read(folder: str, changed: int) -> ModelInfo:
    return folders.read(Path(folder))
