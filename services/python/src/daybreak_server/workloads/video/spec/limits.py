"""Bounds and defaults of a pool's videos, from its model and its options. This module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from daybreak_server.workloads.video.spec import model_folder
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
class VideoLimits:
    """Bounds and defaults of one pool, against which ``VideoParams`` checks a task."""

    family: Family
    multiple: int
    """Width and height must be multiples of this many pixels: VAE scale × patch."""
    temporal: int
    """The number of frames must be ``temporal`` × n + 1."""
    max_side: int
    max_frames: int
    max_steps: int
    max_tokens: int
    max_tokens_reason: str
    takes_image: bool
    two_experts: bool
    defaults: Mapping[str, Any]

    def tokens(self, width: int, height: int, frames: int) -> int:
        """Number of latent patches of a video, which are the transformer's tokens."""
        return (width // self.multiple) * (height // self.multiple) * ((frames - 1) // self.temporal + 1)


TINY: Final = model_folder.FAMILIES["tiny"]


def model_limits(info: ModelInfo, options: VideoOptions) -> VideoLimits:
    """The limits of a model under a pool's options."""
    side, frames, steps = BOUNDS[info.family]
    bounds = options.limits
    max_side = min(bounds.max_side or side, info.rope_max * info.multiple)
    max_frames = min(bounds.max_frames or frames, info.temporal * (info.rope_max - 1) + 1)
    max_tokens = (max_side // info.multiple) ** 2 * ((max_frames - 1) // info.temporal + 1)
    reason = "the limit of this pool"
    if bounds.max_tokens:
        max_tokens = min(max_tokens, bounds.max_tokens)
    fitting = tokens_that_fit(info, options)
    if fitting is not None and fitting < max_tokens:
        max_tokens, reason = fitting, f"what fits in {options.gpu_memory_gib:g} GiB of GPU memory"
    return VideoLimits(
        family=info.family,
        multiple=info.multiple,
        temporal=info.temporal,
        max_side=max_side,
        max_frames=max_frames,
        max_steps=bounds.max_steps or steps,
        max_tokens=max_tokens,
        max_tokens_reason=reason,
        takes_image=info.expand_timesteps,
        two_experts=info.experts == 2,
        defaults=DEFAULTS[info.family],
    )


def tokens_that_fit(info: ModelInfo, options: VideoOptions) -> int | None:
    """Roughly how many tokens fit into the memory of one GPU; ``None`` if the option ``gpu_memory_gib`` is not set.

    The estimate adds the weights that stay on the GPU (with offloading, only a part of them) and, for each token, the
    widest float32 activations of a block. These are the hidden layer of the feed-forward and eight vectors of the
    model's width.
    The estimate refuses videos that can never run. It does not promise that all other videos can run.
    """
    if options.gpu_memory_gib is None:
        return None
    resident = {"none": 1.0, "model": 1.0 / info.experts, "group": 0.1}[options.offload]
    free = options.gpu_memory_gib * GIB - info.weight_bytes * resident
    per_token = 4 * (info.ffn + 8 * info.width)
    return max(0, int(free / per_token))


def limits(options: Mapping[str, Any]) -> VideoLimits:
    """The limits of a pool with these options. The model folder is read again only when its index has changed."""
    parsed = VideoOptions.model_validate(options)
    index = parsed.folder / "model_index.json"
    try:
        modified_ns = index.stat().st_mtime_ns
    except OSError:
        # A gateway also serves pools whose model exists only on the hosts of their groups.
        return model_limits(model_folder.FAMILIES[parsed.assumed_family], parsed)
    return model_limits(_read(str(parsed.folder), modified_ns), parsed)


@lru_cache(maxsize=64)
def _read(folder: str, modified_ns: int) -> ModelInfo:
    return model_folder.read(Path(folder))
