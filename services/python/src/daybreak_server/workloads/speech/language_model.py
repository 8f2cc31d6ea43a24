"""A language model of the Llama family (Llama, Qwen2) that reads speech embeddings and text turn by turn.

A turn has four parts: an opening (which may be empty), the embeddings of its audio, a marker that names the target
language, and the tokens that the model writes. The window slides by whole turns: before a turn begins, the oldest turns
are dropped until at most ``window`` positions are left (``window.py``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from daybreak_server.workloads.speech.layers import Layer, angles, attend_to_all


@dataclass(frozen=True, slots=True, kw_only=True)
class LanguageModelConfig:
    """The shape of a language model."""

    vocabulary: int
    width: int = 128
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 32
    inner: int = 352
    layers: int = 3
    rope_base: float = 10_000.0
    eps: float = 1e-5
    bias: bool = False
    """Whether queries, keys and values have a bias, as in Qwen2."""
    tied: bool = False
    """Whether the output uses the matrix of the embeddings."""


class LanguageModel(nn.Module):
    """The model that the module describes."""

    def __init__(self, config: LanguageModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(config.vocabulary, config.width)
        self.layers = nn.ModuleList(
            Layer(
                config.width,
                config.heads,
                config.kv_heads,
                config.head_dim,
                config.inner,
                bias=config.bias,
                eps=config.eps,
            )
            for _ in range(config.layers)
        )
        self.norm = nn.RMSNorm(config.width, config.eps)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)
        if config.tied:
            self.head.weight = self.embed.weight

    def logits(self, x: Tensor) -> Tensor:
        """The logits [..., vocabulary] of ``x`` [..., width], which is the output of the last layer."""
        logits: Tensor = self.head(self.norm(x))
        return logits

    def forward(self, x: Tensor, starts: Tensor) -> Tensor:
        """The logits of whole streams, from embeddings [batch, time, width].

        A position sees the positions from its entry in ``starts`` to itself.
        """
        positions = torch.arange(x.shape[1], device=x.device)
        seen = (positions >= starts[..., None]) & (positions <= positions[:, None])
        attend = attend_to_all(seen[:, None], angles(positions, self.config.head_dim, self.config.rope_base))
        for layer in self.layers:
            x = layer(x, attend)
        return self.logits(x)
