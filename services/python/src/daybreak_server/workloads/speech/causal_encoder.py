"""Streams audio through the causal encoder, block by block, for the sessions of a batch.

A session has a slot. For the next block, the slot has the last samples, which the features need, and the last frames,
which the convolutions need. The slot also has a ring buffer with the keys and values of the blocks to which the next
block attends. The size of a block does not depend on the length of a turn, so sessions whose turns have different
lengths share a batch.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from daybreak_server.workloads.speech.encoder import FRAMES_BEFORE, SpeechEncoder
from daybreak_server.workloads.speech.features import HOP, OVERLAP, log_mel
from daybreak_server.workloads.speech.layers import Attend, angles, rotate


class CausalEncoder:
    """Implements :class:`~daybreak_server.workloads.speech.streaming.StreamingEncoder`."""

    def __init__(self, module: SpeechEncoder) -> None:
        self.module, config = module, module.config
        self.block_samples = config.block_frames * HOP
        self.block_embeddings = config.block_embeddings
        states = 2 * config.layers * config.left_blocks * config.block * config.width
        size = module.conv_1.weight.element_size()
        self.slot_bytes = (states + FRAMES_BEFORE * config.bands) * size + 4 * OVERLAP + 8

    def reserve(self, slots: int) -> None:
        """Reserve the memory of all slots."""
        config, weight = self.module.config, self.module.conv_1.weight
        self._device, self._dtype = weight.device, weight.dtype
        ring = (config.layers, slots, config.left_blocks, config.block, config.heads, config.head_dim)
        self._keys, self._values = (weight.new_zeros(ring, requires_grad=False) for _ in range(2))
        self._samples = torch.zeros(slots, OVERLAP, device=self._device)
        self._frames = weight.new_zeros(slots, FRAMES_BEFORE, config.bands)
        self._blocks = torch.zeros(slots, dtype=torch.long, device=self._device)

    def reset(self, slot: int) -> None:
        """Prepare a slot for a new session."""
        self._samples[slot] = 0
        self._frames[slot] = 0
        self._blocks[slot] = 0

    @torch.inference_mode()
    def encode(self, slots: Sequence[int], audio: Tensor) -> Tensor:
        """Encode a block per slot: samples [batch, block_samples] to embeddings [batch, block_embeddings, width]."""
        encoder, config = self.module, self.module.config
        at = torch.tensor(slots, device=self._device)
        samples = torch.cat((self._samples[at], audio.to(self._device)), 1)
        mel = log_mel(samples).to(self._dtype)
        frames = torch.cat((self._frames[at], mel), 1)
        x, before = encoder.subsample(frames), self._blocks[at]
        positions = before[:, None] * config.block + torch.arange(config.block, device=self._device)
        by = angles(positions, config.head_dim)
        full = torch.arange(config.left_blocks, device=self._device) < before[:, None]
        seen = functional.pad(full.repeat_interleave(config.block, 1), (0, config.block), value=True)[
            :, None, None
        ]
        new: list[tuple[Tensor, Tensor]] = []
        for number, layer in enumerate(encoder.layers):
            x = layer(x, self._attend(number, at, by, seen, new))
        embeddings: Tensor = encoder.adapt(encoder.norm(x))
        # Only the lines below change the slots, so if anything above raises, the slots are unchanged.
        place = before % config.left_blocks
        for ring, block in new:
            ring[at, place] = block
        self._samples[at] = samples[:, -OVERLAP:]
        self._frames[at] = mel[:, -FRAMES_BEFORE:]
        self._blocks[at] = before + 1
        return embeddings

    def _attend(
        self,
        number: int,
        at: Tensor,
        by: tuple[Tensor, Tensor],
        seen: Tensor,
        new: list[tuple[Tensor, Tensor]],
    ) -> Attend:
        """The attention of one layer to the ring and the new block. Adds to ``new`` the ring's next keys and values."""

        def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            keys = rotate(keys, by)
            pairs = [(self._keys[number], keys), (self._values[number], values)]
            new.extend(pairs)
            seen_keys, seen_values = (self._with_ring(ring[at], block) for ring, block in pairs)
            asking = rotate(queries, by).transpose(1, 2)
            output = functional.scaled_dot_product_attention(asking, seen_keys, seen_values, attn_mask=seen)
            return output.transpose(1, 2)

        return attend

    @staticmethod
    def _with_ring(ring: Tensor, block: Tensor) -> Tensor:
        """The contents of the ring, followed by the new block: [batch, heads, time, head_dim]."""
        return torch.cat((ring.flatten(1, 2), block), 1).transpose(1, 2)
