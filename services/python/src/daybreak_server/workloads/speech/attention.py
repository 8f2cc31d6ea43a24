"""Attention to the paged caches of the sessions of a batch. One interface, with an implementation for each device.

A batch is *ragged*: each session brings any number of new positions, one in a decode step, many in a prefill. The new
positions of all sessions are one flat list. ``plan`` prepares what all layers share. The plan then gives the
attention of each layer, which writes the new keys and values into the pages, and attends to what each position may see.

- :class:`GatherAttention` gathers the pages of each session and calls torch's scaled dot-product attention.
- :class:`FlexAttention` gives torch's FlexAttention all pages and a mask of blocks, which skips the pages of other
  sessions. Compiled for a GPU, it reads only the blocks of pages that a query may see. Without compilation, it computes
  the attention to all pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from daybreak_server.workloads.speech.layers import Attend, angles, rotate


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """The new positions of one session, and where its old ones are."""

    pages: Sequence[int]
    base: int
    """The position at the beginning of the first page."""
    visible: int
    """The first position that may be seen."""
    end: int
    """The position after the last new one."""
    count: int
    """How many positions are new."""


@dataclass(frozen=True, slots=True)
class Memory:
    """The keys and values of all layers: [layers, pages + 1, page_size, kv_heads, head_dim].

    The last page belongs to no session. It pads the rows of the table of pages.
    """

    keys: Tensor
    values: Tensor

    @classmethod
    def reserve(
        cls,
        *,
        layers: int,
        pages: int,
        page_size: int,
        kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: str,
    ) -> Memory:
        """Reserve the memory."""
        shape = (layers, pages + 1, page_size, kv_heads, head_dim)
        return cls(*(torch.zeros(shape, dtype=dtype, device=device) for _ in range(2)))

    @property
    def page_size(self) -> int:
        """The number of positions in a page."""
        return self.keys.shape[2]

    @property
    def bytes_per_page(self) -> int:
        """The memory of a page in all layers."""
        return 2 * self.keys[:, 0].numel() * self.keys.element_size()


Plan = Callable[[int], Attend]
"""Returns the attention of the layer with this number."""


class PagedAttention(Protocol):
    """Attention to the paged caches; see the module."""

    def plan(self, spans: Sequence[Span]) -> Plan:
        """Prepare a batch. The flat list has the new positions of the spans, in the order of the spans."""


def _new_positions(spans: Sequence[Span], memory: Memory) -> tuple[Tensor, Tensor, Tensor]:
    """For each new position: the position, the page that holds it, and its place in this page."""
    positions, pages = [], []
    for span in spans:
        for position in range(span.end - span.count, span.end):
            positions.append(position)
            pages.append(span.pages[(position - span.base) // memory.page_size])
    device = memory.keys.device
    at = torch.tensor(positions, device=device)
    bases = torch.tensor([span.base for span in spans for _ in range(span.count)], device=device)
    return at, torch.tensor(pages, device=device), (at - bases) % memory.page_size


class GatherAttention:
    """Uses plain torch. Queries are padded to the longest span of the batch, and keys to the most pages that a
    session may have.

    Spans of one position are computed apart from longer ones. So decodes are not padded to the length of prefills.

    The shape of a session's keys does not depend on the other sessions of the batch, so rounding does not either.
    """

    def __init__(self, memory: Memory, *, rope_base: float, pages_each: int) -> None:
        self._memory, self._rope_base, self._pages_each = memory, rope_base, pages_each

    def plan(self, spans: Sequence[Span]) -> Plan:
        """Prepare the table of pages and the mask."""
        memory = self._memory
        at, page, place = _new_positions(spans, memory)
        by = angles(at, memory.keys.shape[-1], self._rope_base)
        single = torch.tensor(
            [span.count == 1 for span in spans for _ in range(span.count)], device=at.device
        )
        parts = [
            (rows, self._part(chosen))
            for rows, chosen in (
                (~single, [span for span in spans if span.count > 1]),
                (single, [span for span in spans if span.count == 1]),
            )
            if chosen
        ]

        def layer(number: int) -> Attend:
            keys, values = memory.keys[number], memory.values[number]

            def attend(queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
                keys[page, place] = rotate(new_keys, by)
                values[page, place] = new_values
                rotated = rotate(queries, by)
                if len(parts) == 1:
                    return parts[0][1](rotated, keys, values)
                output = torch.empty_like(queries)
                for rows, attended in parts:
                    output[rows] = attended(rotated[rows], keys, values)
                return output

            return attend

        return layer

    def _part(self, spans: Sequence[Span]) -> Attend:
        """The attention of some spans. It takes their rotated queries, and the keys and values of all pages."""
        memory, longest = self._memory, max(span.count for span in spans)
        device, size = memory.keys.device, memory.page_size
        spare = memory.keys.shape[1] - 1
        table = torch.tensor(
            [[*span.pages, *([spare] * (self._pages_each - len(span.pages)))] for span in spans],
            device=device,
        )
        first = torch.tensor([span.end - span.count for span in spans], device=device)
        base, visible, end = (
            torch.tensor([getattr(span, name) for span in spans], device=device)
            for name in ("base", "visible", "end")
        )
        query = first[:, None] + torch.arange(longest, device=device)
        key = base[:, None] + torch.arange(self._pages_each * size, device=device)
        sees = (key[:, None] >= visible[:, None, None]) & (key[:, None] <= query[..., None])
        mask, flat = sees[:, None], (query < end[:, None])
        ragged = longest > 1

        def padded(vectors: Tensor) -> Tensor:
            if not ragged:
                return vectors[:, :, None]
            rows = vectors.new_zeros(len(spans), longest, *vectors.shape[1:])
            rows[flat] = vectors
            return rows.transpose(1, 2)

        def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            seen, carried = (part[table].flatten(1, 2).transpose(1, 2) for part in (keys, values))
            output = functional.scaled_dot_product_attention(
                padded(queries), seen, carried, attn_mask=mask, enable_gqa=True
            ).transpose(1, 2)
            return output[flat] if ragged else output[:, 0]

        return attend


class FlexAttention:
    """torch's FlexAttention over all pages. ``compiled``: for a GPU. Uncompiled attention is slow, for tests only.

    A compiled kernel is made for one number of queries, and a compilation takes seconds. So batches are padded to a few
    sizes (:func:`padded_size`). The added queries see nothing.
    """

    def __init__(self, memory: Memory, *, rope_base: float, compiled: bool) -> None:
        from torch.nn.attention import flex_attention as flex

        self._memory, self._rope_base, self._compiled = memory, rope_base, compiled
        self._attention: Any = (
            torch.compile(flex.flex_attention, dynamic=False) if compiled else flex.flex_attention
        )
        self._block_mask: Any = flex.create_block_mask

    def plan(self, spans: Sequence[Span]) -> Plan:
        """Prepare the mask, from the session and the first position of each page."""
        memory = self._memory
        device = memory.keys.device
        at, page, place = _new_positions(spans, memory)
        by = angles(at, memory.keys.shape[-1], self._rope_base)
        pages = memory.keys.shape[1]
        owner = torch.full((pages,), _NOBODY, device=device)
        begins = torch.zeros(pages, dtype=torch.long, device=device)
        for number, span in enumerate(spans):
            held = torch.tensor(list(span.pages), device=device)
            owner[held] = number
            begins[held] = span.base + torch.arange(len(span.pages), device=device) * memory.page_size
        asks = torch.tensor(
            [number for number, span in enumerate(spans) for _ in range(span.count)], device=device
        )
        visible = torch.tensor([span.visible for span in spans], device=device)[asks]
        attention = self._masked(owner, begins, asks, visible, at)

        def layer(number: int) -> Attend:
            keys, values = memory.keys[number], memory.values[number]

            def attend(queries: Tensor, new_keys: Tensor, new_values: Tensor) -> Tensor:
                keys[page, place] = rotate(new_keys, by)
                values[page, place] = new_values
                return attention(rotate(queries, by), keys, values)

            return attend

        return layer

    @torch.inference_mode()
    def warm_up(self, max_queries: int, *, heads: int) -> None:
        """Compile for each size up to ``max_queries`` queries of ``heads`` heads, before a session needs it."""
        memory, size = self._memory, 1
        pages, width = memory.keys.shape[1], memory.keys.shape[-1]
        nobody = torch.full((pages,), _NOBODY, device=memory.keys.device)
        while self._compiled and size <= padded_size(max_queries):
            size = padded_size(size)
            none = nobody.new_zeros(size)
            attention = self._masked(nobody, torch.zeros_like(nobody), none, none, none)
            attention(memory.keys.new_zeros(size, heads, width), memory.keys[0], memory.values[0])
            size += 1

    def _masked(self, owner: Tensor, begins: Tensor, asks: Tensor, visible: Tensor, at: Tensor) -> Attend:
        """The attention of queries to the pages of a layer.

        :param owner: For each page, the number of its session.
        :param begins: For each page, its first position.
        :param asks: For each query, the number of its session.
        :param visible: For each query, the first position that it sees.
        :param at: For each query, its own position, which is the last one that it sees.
        """
        count, size = len(asks), self._memory.page_size
        more = padded_size(count) - count if self._compiled else 0
        asks, visible, at = (
            functional.pad(part, (0, more), value=fill)
            for part, fill in ((asks, _PADDED), (visible, 0), (at, 0))
        )

        def sees(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            position = begins[key // size] + key % size
            mine = owner[key // size] == asks[query]
            return mine & (position >= visible[query]) & (position <= at[query])

        mask = self._block_mask(sees, None, None, len(asks), len(owner) * size, device=str(owner.device))

        def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
            asking = functional.pad(queries, (0, 0, 0, 0, 0, more)).transpose(0, 1)[None]
            all_keys, all_values = (part.flatten(0, 1).transpose(0, 1)[None] for part in (keys, values))
            output: Tensor = self._attention(asking, all_keys, all_values, block_mask=mask, enable_gqa=True)
            return output[0].transpose(0, 1)[:count]

        return attend


_NOBODY, _PADDED = -1, -2
"""In place of a session's number: ``_NOBODY`` owns the free pages, ``_PADDED`` the queries that are only padding."""


def padded_size(queries: int) -> int:
    """The number of queries for which compiled attention runs: 16, 64, 256, 1024 and so on."""
    size = 16
    while size < queries:
        size *= 4
    return size
