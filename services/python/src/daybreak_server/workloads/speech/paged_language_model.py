"""Runs the language model for the sessions of a batch. The model's key-value cache is divided into pages."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from daybreak_server.workloads.speech.attention import (
    FlexAttention,
    GatherAttention,
    Memory,
    PagedAttention,
    Span,
)
from daybreak_server.workloads.speech.language_model import LanguageModel
from daybreak_server.workloads.speech.pages import PagePool, PageTable, pages_at_most

PAGE_SIZE = 16
_WARM_QUERIES = 4096
"""On a GPU, ``flex`` compiles attention at the start for batches of up to this many new positions. For a larger batch,
it compiles attention when such a batch first runs."""


class PagedLanguageModel:
    """The model and its key-value cache. In one step, some sessions may prefill and others decode."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        sessions: int,
        window: int,
        longest_turn: int,
        attention: str = "gather",
    ) -> None:
        self._model, self._window, config = model, window, model.config
        self.pages_each = pages_at_most(window, longest_turn, PAGE_SIZE)
        weight = model.embed.weight
        self.memory = Memory.reserve(
            layers=config.layers,
            pages=sessions * self.pages_each,
            page_size=PAGE_SIZE,
            kv_heads=config.kv_heads,
            head_dim=config.head_dim,
            dtype=weight.dtype,
            device=str(weight.device),
        )
        self.pool = PagePool(sessions * self.pages_each, PAGE_SIZE)
        self._attention = self._of(attention, max_queries=sessions * longest_turn)

    def _of(self, name: str, *, max_queries: int) -> PagedAttention:
        config = self._model.config
        if name == "flex":
            flex = FlexAttention(self.memory, rope_base=config.rope_base, compiled=self.memory.keys.is_cuda)
            flex.warm_up(min(max_queries, _WARM_QUERIES), heads=config.heads)
            return flex
        return GatherAttention(self.memory, rope_base=config.rope_base, pages_each=self.pages_each)

    def table(self) -> PageTable:
        """The table of a new session. It has no page yet."""
        return PageTable(self.pool, self._window)

    def embed(self, tokens: Sequence[int]) -> Tensor:
        """The embeddings of tokens."""
        return self._model.embed.weight[
            torch.tensor(tokens, dtype=torch.long, device=self._model.embed.weight.device)
        ]

    @torch.inference_mode()
    def step(self, tables: Sequence[PageTable], new: Sequence[Tensor]) -> Tensor:
        """Feed each session its new embeddings, [count, width].

        Returns the logits after the last embedding of each session, [batch, vocabulary].

        If the step raises, the sessions are unchanged. All positions to which the step has written are free again.

        :raises OutOfPagesError: if a session needs more pages than are free.
        """
        spans: list[Span] = []
        try:
            for table, embeddings in zip(tables, new, strict=True):
                table.extend(len(embeddings))
                spans.append(
                    Span(
                        pages=tuple(table.pages),
                        base=table.base,
                        visible=table.visible,
                        end=table.end,
                        count=len(embeddings),
                    )
                )
            return self._logits(spans, new)
        except BaseException:
            for table, span in zip(tables, spans, strict=False):
                table.take_back(span.count)
            raise

    def _logits(self, spans: Sequence[Span], new: Sequence[Tensor]) -> Tensor:
        plan, x = self._attention.plan(spans), torch.cat(list(new))
        for number, layer in enumerate(self._model.layers):
            x = layer(x, plan(number))
        ends = torch.tensor([span.count for span in spans], device=x.device).cumsum(0) - 1
        return self._model.logits(x[ends])
