"""Decodes latents to frames. Without tiling, Wan's VAE decodes in temporal chunks, so that a long decode shows
progress and can be stopped."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from daybreak_server.workloads.video.pipeline.model import latent_scale

Frames = NDArray[np.uint8]
"""[frames, height, width, 3], RGB."""

PREVIEW_SIDE: Final = 256
PREVIEW_BYTES: Final = 32 * 1024


def chunks(vae_class: str, latent_frames: int, *, tiled: bool) -> int:
    """The number of chunks of a decode. Every rank must know it, although only the leader decodes."""
    return latent_frames if vae_class == "AutoencoderKLWan" and not tiled else 1


@torch.no_grad()
def decode(vae: Any, latents: Tensor, *, tiled: bool = False) -> Iterator[Frames]:
    """Yield the frames of normalised latents [1, z, n, h, w], chunk by chunk (see :func:`chunks`).

    A chunk of ``AutoencoderKLWan`` is one iteration of its own causal loop (``_decode``). Together the chunks equal the
    result of ``vae.decode`` bit for bit. But ``vae.decode`` also copies all earlier frames in every iteration.
    """
    z = raw_latents(vae, latents)
    if chunks(type(vae).__name__, z.shape[2], tiled=tiled) == 1:
        yield to_frames(vae.decode(z, return_dict=False)[0])
        return
    # Imported here, because the codec of the tiny model does not need it.
    from diffusers.models.autoencoders.autoencoder_kl_wan import unpatchify

    vae.clear_cache()
    try:
        z = vae.post_quant_conv(z)
        for i in range(z.shape[2]):
            vae._conv_idx = [0]
            part = vae.decoder(
                z[:, :, i : i + 1], feat_cache=vae._feat_map, feat_idx=vae._conv_idx, first_chunk=i == 0
            )
            if vae.config.patch_size is not None:
                part = unpatchify(part, patch_size=vae.config.patch_size)
            yield to_frames(torch.clamp(part, min=-1.0, max=1.0))
    finally:
        vae.clear_cache()


def raw_latents(vae: Any, latents: Tensor) -> Tensor:
    """Convert normalised latents to the scale and dtype of the VAE, with the same arithmetic as the stock pipeline."""
    latents = latents.to(dtype=vae.dtype)
    mean, inverse_deviation = latent_scale(vae, latents)
    return latents / inverse_deviation + mean


def to_frames(video: Tensor) -> Frames:
    """Convert pixels [1, 3, frames, height, width] in -1..1 to RGB bytes on the CPU."""
    scaled = (video[0].float() / 2 + 0.5).clamp(0, 1).mul(255).round().to(torch.uint8)
    frames: Frames = scaled.permute(1, 2, 3, 0).contiguous().cpu().numpy()
    return frames


@torch.no_grad()
def preview(vae: Any, latents: Tensor) -> bytes:
    """Make a WebP picture of at most 32 KiB from one frame of normalised latents [1, z, n, h, w].

    A causal VAE can decode the first frame alone, but no other. The codec of the tiny model can decode any frame alone,
    so its previews show the middle one.
    """
    if hasattr(vae, "decode_frame"):
        z = raw_latents(vae, latents)
        picture = to_frames(vae.decode_frame(z[:, :, z.shape[2] // 2])[:, :, None])
    else:
        picture = next(iter(decode(vae, latents[:, :, :1])))
    return webp(picture[0], side=PREVIEW_SIDE, max_bytes=PREVIEW_BYTES)


def webp(picture: Frames, *, side: int | None = None, max_bytes: int | None = None) -> bytes:
    """Encode an RGB picture [height, width, 3] as WebP of at most ``max_bytes`` bytes, with no side above ``side``."""
    image = Image.fromarray(picture)
    if side is not None:
        image.thumbnail((side, side))
    for quality in (85, 70, 50, 30, 10):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=4)
        if max_bytes is None or buffer.tell() <= max_bytes:
            return buffer.getvalue()
    return webp(picture, side=(side or max(picture.shape)) // 2, max_bytes=max_bytes)
