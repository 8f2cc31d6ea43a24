"""The streaming speech encoder: log-mel frames to embeddings for the language model, block by block.

Two causal convolutions of stride 2 make one state from four frames (40 ms). Layers attend within a block and to some
blocks before it. So the states of a block depend on nothing that comes after the block, and the cache of earlier blocks
has a fixed size.

The adapter stacks states into embeddings. By default, a block lasts 0.48 s, layers see the four blocks before it, and
two states make one embedding, so a block has six embeddings.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from daybreak_server.workloads.speech.layers import Layer, angles, attend_to_all

FRAMES_PER_STATE = 4
FRAMES_BEFORE = 3
"""How many mel frames before a block the convolutions need."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderConfig:
    """The shape of an encoder."""

    bands: int = 80
    width: int = 128
    heads: int = 4
    inner: int = 352
    layers: int = 3
    block: int = 12
    """States of one block."""
    left_blocks: int = 4
    stack: int = 2
    """How many states the adapter turns into one embedding."""
    output: int = 128
    """The width of the language model."""

    @property
    def head_dim(self) -> int:
        """The width of a head."""
        return self.width // self.heads

    @property
    def block_frames(self) -> int:
        """Mel frames of one block."""
        return self.block * FRAMES_PER_STATE

    @property
    def block_embeddings(self) -> int:
        """Embeddings of one block."""
        return self.block // self.stack


class SpeechEncoder(nn.Module):
    """See the module."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.conv_1 = nn.Linear(3 * config.bands, width)
        self.conv_2 = nn.Linear(3 * width, width)
        self.layers = nn.ModuleList(
            Layer(width, config.heads, config.heads, config.head_dim, config.inner)
            for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(width, 1e-5)
        self.adapter = nn.Sequential(
            nn.Linear(config.stack * width, 2 * width), nn.SiLU(), nn.Linear(2 * width, config.output)
        )

    def subsample(self, frames: Tensor) -> Tensor:
        """Turn frames, [batch, 3 + 4n, bands], into states, [batch, n, width]. The first 3 frames precede the block.

        The convolutions are computed as matrix products of unfolded frames, because the rounding of these products does
        not depend on the batch.
        """
        for conv in (self.conv_1, self.conv_2):
            frames = functional.gelu(conv(frames.unfold(1, 3, 2).transpose(2, 3).flatten(2)))
        return frames

    def adapt(self, states: Tensor) -> Tensor:
        """Turn states, [batch, n, width], into embeddings, [batch, n / stack, output]."""
        embeddings: Tensor = self.adapter(
            states.reshape(*states.shape[:-2], -1, self.config.stack * self.config.width)
        )
        return embeddings

    def forward(self, frames: Tensor) -> Tensor:
        """Turn frames of whole streams, [batch, time, bands], into states, [batch, time / 4, width].

        ``time`` must be a whole number of blocks.
        """
        x = self.subsample(functional.pad(frames, (0, 0, FRAMES_BEFORE, 0)))
        positions = torch.arange(x.shape[1], device=x.device)
        blocks = positions // self.config.block
        behind = blocks[:, None] - blocks[None]
        attend = attend_to_all(
            (behind >= 0) & (behind <= self.config.left_blocks), angles(positions, self.config.head_dim)
        )
        for layer in self.layers:
            x = layer(x, attend)
        states: Tensor = self.norm(x)
        return states
