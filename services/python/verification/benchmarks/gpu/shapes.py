"""Builds Wan 2.2 models with the real shapes and random weights, so that nothing is downloaded.

The configurations are those of Wan-AI/Wan2.2-TI2V-5B-Diffusers and Wan-AI/Wan2.2-T2V-A14B-Diffusers. ``tiny`` is
not the shape of a published model. A test uses it to run the code of the benchmark on a CPU.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import torch

from daybreak_server.workloads.video.pipeline import weights
from daybreak_server.workloads.video.pipeline.model import WanModel, dtype_of, place
from daybreak_server.workloads.video.spec.model_folder import FAMILIES, ModelInfo
from daybreak_server.workloads.video.spec.options import VideoOptions

TRANSFORMER: Final[Mapping[str, Any]] = {
    "patch_size": (1, 2, 2), "attention_head_dim": 128, "text_dim": 4096, "freq_dim": 256, "eps": 1e-6,
    "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024,
}  # fmt: skip

WIDE_VAE: Final[Mapping[str, Any]] = {
    "base_dim": 160, "decoder_base_dim": 256, "z_dim": 48, "dim_mult": [1, 2, 4, 4], "num_res_blocks": 2,
    "attn_scales": [], "temperal_downsample": [False, True, True], "in_channels": 12, "out_channels": 12,
    "patch_size": 2, "is_residual": True, "scale_factor_temporal": 4, "scale_factor_spatial": 16,
    "latents_mean": [0.0] * 48, "latents_std": [1.0] * 48,
}  # fmt: skip

SCHEDULER: Final[Mapping[str, Any]] = {
    "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 5.0, "num_train_timesteps": 1000,
}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """What to build."""

    info: ModelInfo
    transformer: Mapping[str, Any]
    vae: Mapping[str, Any]
    boundary: float | None = None


SHAPES: Final[Mapping[str, Shape]] = {
    "ti2v-5b": Shape(
        FAMILIES["ti2v-5b"],
        {**TRANSFORMER, "num_attention_heads": 24, "num_layers": 30, "ffn_dim": 14336,
         "in_channels": 48, "out_channels": 48},
        WIDE_VAE,
    ),
    "t2v-a14b": Shape(
        FAMILIES["t2v-a14b"],
        {**TRANSFORMER, "num_attention_heads": 40, "num_layers": 40, "ffn_dim": 13824,
         "in_channels": 16, "out_channels": 16},
        {},  # A14B uses the VAE of Wan 2.1, which AutoencoderKLWan builds by default
        boundary=0.875,
    ),
    "tiny": Shape(
        FAMILIES["t2v-a14b"],
        {**TRANSFORMER, "num_attention_heads": 4, "attention_head_dim": 12, "text_dim": 32, "num_layers": 2,
         "ffn_dim": 32, "in_channels": 16, "out_channels": 16},
        {"base_dim": 3, "z_dim": 16, "dim_mult": [1, 1, 1, 1], "num_res_blocks": 1,
         "temperal_downsample": [False, True, True]},
        boundary=0.875,
    ),
}  # fmt: skip


def build(name: str, options: VideoOptions, device: torch.device, *, vae: bool = True) -> WanModel:
    """A model of the shape ``name``, prepared as ``options`` says.

    Its weights are random, because a kernel takes the same time whatever the values of the weights are.
    """
    from diffusers import AutoencoderKLWan, WanTransformer3DModel

    shape, dtype = SHAPES[name], dtype_of(options.dtype, device)
    home = device if options.offload == "none" else torch.device("cpu")
    experts = [
        _random(WanTransformer3DModel, shape.transformer, dtype, home) for _ in range(shape.info.experts)
    ]
    model = WanModel(
        info=shape.info,
        fingerprint=f"random:{name}:{dtype}",
        device=device,
        dtype=dtype,
        transformer=experts[0],
        transformer_2=experts[1] if len(experts) > 1 else None,
        boundary_ratio=shape.boundary,
        scheduler_config=dict(SCHEDULER),
        offload=options.offload if device.type == "cuda" else "none",
    )
    if vae:
        vae_dtype = dtype_of(options.vae_dtype, device, auto=torch.float32)
        model.vae = _random(AutoencoderKLWan, shape.vae, vae_dtype, home)
        if options.vae_tiling:
            model.vae.enable_tiling()
    place(model, options)
    return model


def _random(cls: Any, config: Mapping[str, Any], dtype: torch.dtype, device: torch.device) -> Any:
    model = weights.empty(cls, dict(config))
    generator = torch.Generator(device).manual_seed(0)
    named = (
        (name, torch.randn(value.shape, dtype=dtype, device=device, generator=generator) * 0.02)
        for name, value in model.state_dict().items()
    )
    return weights.fill(model, named, dtype=dtype, device=device, what=f"random {cls.__name__}")
