"""The Transformer layer of the speech encoder and of the language model, without its attention.

The caller of a layer passes it a function that computes the attention. Training attends to whole streams
under a mask (:func:`attend_to_all`); serving attends to the caches of the sessions of a batch
(``attention.py``, and for the encoder ``causal_encoder.py``). Everything else works on each position alone, so the
language model gets the positions of all sessions of a batch as one flat list without padding.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Angles = tuple[Tensor, Tensor]
"""Cosines and sines of rotary angles, each of the shape [..., head_dim / 2]."""

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Takes queries, keys and values, [..., heads, head_dim], before rotation. Returns the attention's output, in the shape
of the queries."""


def angles(positions: Tensor, head_dim: int, base: float = 10_000.0) -> Angles:
    """Rotary angles of positions, in the shape [..., 1, head_dim / 2].

    They are computed in float64, so that they are still exact in a session that has lasted for days.
    """
    powers = torch.arange(0, head_dim, 2, dtype=torch.float64, device=positions.device) / head_dim
    turns = positions.double()[..., None, None] * base**-powers
    return turns.cos().float(), turns.sin().float()


def rotate(vectors: Tensor, by: Angles) -> Tensor:
    """Rotate each head as Llama does: a pair of coordinates has one element from each half of the head."""
    first, second = vectors.chunk(2, -1)
    cos, sin = (part.to(vectors.dtype) for part in by)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), -1)


def attend_to_all(mask: Tensor, by: Angles) -> Attend:
    """Return a function that computes attention within whole streams, [batch, time, heads, head_dim].

    Positions attend to each other where the mask is true. The mask is broadcast.
    """

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        queries, keys = rotate(queries, by), rotate(keys, by)
        queries, keys, values = (part.transpose(-2, -3) for part in (queries, keys, values))
        output = functional.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, enable_gqa=True
        )
        return output.transpose(-2, -3)

    return attend


class Layer(nn.Module):
    """RMSNorm, attention, RMSNorm, SwiGLU, as in Llama. One matrix product computes queries, keys and values."""

    def __init__(
        self,
        width: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        inner: int,
        *,
        bias: bool = False,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.head_dim = head_dim
        self.parts = (heads, kv_heads, kv_heads)
        self.attention_norm = nn.RMSNorm(width, eps)
        self.qkv = nn.Linear(width, sum(self.parts) * head_dim, bias=bias)
        self.out = nn.Linear(heads * head_dim, width, bias=False)
        self.mlp_norm = nn.RMSNorm(width, eps)
        self.gate_up = nn.Linear(width, 2 * inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor, attend: Attend) -> Tensor:
        """``x`` and the result have the shape [..., width]."""
        heads = self.qkv(self.attention_norm(x)).unflatten(-1, (-1, self.head_dim))
        queries, keys, values = heads.split(self.parts, -2)
        x = x + self.out(attend(queries, keys, values).flatten(-2))
        gate, up = self.gate_up(self.mlp_norm(x)).chunk(2, -1)
        output: Tensor = x + self.down(functional.silu(gate) * up)
        return output
