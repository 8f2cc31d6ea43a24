"""A linear block codec that the tiny model uses in place of a video VAE.

The tiny model must be small enough to ship and quick enough to train on a laptop. A learned causal VAE was the slowest
and weakest part of every design that was tried, so the tiny model uses the optimal *linear* code instead. The codec
projects each block of 4 frames x 8 x 8 pixels onto the leading principal directions (Pearson 1901; the Karhunen-Loeve
transform of image coding). It repeats the first frame to fill a whole block, so 4n+1 frames become n+1 latent frames,
as with Wan's causal VAE.

:class:`BlockCodec` has the interface of ``AutoencoderKLWan`` (the same config names, ``encode(…).latent_dist``,
``decode(…).sample``), so a pipeline that works with one class works with the other.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.autoencoders.vae import DecoderOutput, DiagonalGaussianDistribution
from diffusers.models.modeling_outputs import AutoencoderKLOutput
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor

CHANNELS = 3
LOG_VARIANCE_OF_A_POINT = -30.0
"""Low enough that ``latent_dist.sample()`` returns the mean, so encoding is deterministic."""


class BlockCodec(ModelMixin, ConfigMixin):  # type: ignore[misc]  # diffusers ships no types
    """Encodes the blocks of a video in an orthonormal basis around one origin block.

    Videos have the shape [B, 3, 4n+1, H, W] and values in -1..1; H and W are multiples of the spatial factor. Latents
    have the shape [B, z_dim, n+1, H/8, W/8] and are not normalised. As with Wan's VAE, the caller applies
    ``config.latents_mean`` and ``config.latents_std``.
    """

    @register_to_config  # type: ignore[untyped-decorator]
    def __init__(
        self,
        z_dim: int = 32,
        scale_factor_temporal: int = 4,
        scale_factor_spatial: int = 8,
        latents_mean: list[float] | None = None,
        latents_std: list[float] | None = None,
    ) -> None:
        super().__init__()
        self.frames, self.side = scale_factor_temporal, scale_factor_spatial
        pixels = CHANNELS * self.frames * self.side**2
        self.basis = torch.nn.Parameter(torch.zeros(pixels, z_dim), requires_grad=False)
        self.origin = torch.nn.Parameter(torch.zeros(pixels), requires_grad=False)

    def encode(self, x: Tensor, return_dict: bool = True) -> Any:
        """Return the latents of a video as a distribution (of zero width), because callers of a VAE expect one.

        :raises ValueError: when the video does not divide into blocks.
        """
        mean = ((self.blocks(x) - self.origin) @ self.basis).permute(0, 4, 1, 2, 3)
        spread = torch.full_like(mean, LOG_VARIANCE_OF_A_POINT)
        posterior = DiagonalGaussianDistribution(torch.cat([mean, spread], 1))
        return AutoencoderKLOutput(latent_dist=posterior) if return_dict else (posterior,)

    def decode(self, z: Tensor, return_dict: bool = True) -> Any:
        """Decode latents [B, z_dim, n+1, h, w] to a video [B, 3, 4n+1, 8h, 8w], clamped to -1..1."""
        batch, _, steps, rows, columns = z.shape
        blocks = z.permute(0, 2, 3, 4, 1) @ self.basis.T + self.origin
        video = (
            blocks.view(batch, steps, rows, columns, CHANNELS, self.frames, self.side, self.side)
            .permute(0, 4, 1, 5, 2, 6, 3, 7)
            .reshape(batch, CHANNELS, steps * self.frames, rows * self.side, columns * self.side)
        )
        video = video[:, :, self.frames - 1 :].clamp(-1.0, 1.0)
        return DecoderOutput(sample=video) if return_dict else (video,)

    def decode_frame(self, z: Tensor) -> Tensor:
        """Decode one latent frame [B, z_dim, h, w] to one picture [B, 3, 8h, 8w] in -1..1, for a preview.

        This computes only the last of the block's 4 frames, with a quarter of the work of ``decode``. The pixels are
        exactly those that ``decode`` computes for this frame.
        """
        batch, _, rows, columns = z.shape
        block_shape = (CHANNELS, self.frames, self.side, self.side)
        basis = self.basis.view(*block_shape, -1)[:, -1].reshape(-1, z.shape[1])
        origin = self.origin.view(block_shape)[:, -1].reshape(-1)
        picture = (
            (z.permute(0, 2, 3, 1) @ basis.T + origin)
            .view(batch, rows, columns, CHANNELS, self.side, self.side)
            .permute(0, 3, 1, 4, 2, 5)
            .reshape(batch, CHANNELS, rows * self.side, columns * self.side)
        )
        return picture.clamp(-1.0, 1.0)

    def blocks(self, x: Tensor) -> Tensor:
        """Cut a video into block vectors [B, n+1, H/8, W/8, 3*4*8*8].

        :raises ValueError: when the video does not divide into blocks.
        """
        if (x.shape[2] - 1) % self.frames or x.shape[3] % self.side or x.shape[4] % self.side:
            required = f"{self.frames}n+1 frames and sides that are multiples of {self.side}"
            raise ValueError(f"a video must have {required}, but its shape is {tuple(x.shape[2:])}")
        x = torch.cat([x[:, :, :1].repeat(1, 1, self.frames - 1, 1, 1), x], 2)
        batch, channels, frames, height, width = x.shape
        steps, rows, columns = frames // self.frames, height // self.side, width // self.side
        grid = x.reshape(batch, channels, steps, self.frames, rows, self.side, columns, self.side)
        return grid.permute(0, 2, 4, 6, 1, 3, 5, 7).reshape(batch, steps, rows, columns, -1)


def fit(batches: Iterable[Tensor], *, z_dim: int, origin: float, whitening: float) -> BlockCodec:
    """Compute the codec whose basis loses the least energy on ``batches`` of videos [B, 3, T, H, W].

    The basis has a closed form: the leading eigenvectors of the blocks' second moment about ``origin`` (a grey level in
    -1..1). The origin is the plain background and not the mean, so that background blocks are encoded exactly.

    ``whitening`` determines the scale of the latents. If s are the standard deviations of the latent channels,
    ``latents_std`` is s**whitening times a constant. The caller divides the latents by ``latents_std``. The constant
    makes the mean variance of the quotients 1. With ``whitening=1``, every channel has unit variance. A lower value
    leaves more variance to coarse channels than to fine ones, so that noise hides details before it hides the layout.
    """
    codec: BlockCodec = BlockCodec(z_dim=z_dim)
    codec.origin.data.fill_(origin)
    moment, total, count = torch.zeros(2, 0), torch.zeros(0), 0
    for batch in batches:
        rows = (codec.blocks(batch) - codec.origin).flatten(0, 3)
        if not count:
            moment, total = rows.new_zeros(rows.shape[1], rows.shape[1]), rows.new_zeros(rows.shape[1])
        moment += rows.T @ rows
        total += rows.sum(0)
        count += len(rows)
    _, vectors = torch.linalg.eigh(moment.double() / count)
    basis = vectors.flip(1)[:, :z_dim].float()
    mean = total / count @ basis
    deviation = (((moment / count @ basis) * basis).sum(0) - mean**2).clamp_min(1e-8).sqrt()
    scale = deviation**whitening
    scale = scale * ((deviation / scale) ** 2).mean().sqrt()
    codec.basis.data = basis.contiguous()
    codec.register_to_config(latents_mean=mean.tolist(), latents_std=scale.tolist())
    return codec
