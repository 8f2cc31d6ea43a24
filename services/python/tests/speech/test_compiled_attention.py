"""Compiled FlexAttention, on a CPU: it gives the results of plain attention, and is compiled once for many batches.

The command ``make gpu`` tests the kernels for GPUs.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence

import pytest
import torch

from daybreak_server.workloads.speech.attention import (
    FlexAttention,
    GatherAttention,
    Memory,
    Span,
    padded_size,
)

pytestmark = [
    pytest.mark.heavy,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is not installed: apt-get install g++"),
]
PAGES_EACH, PAGE_SIZE, HEADS, WIDTH = 5, 16, 2, 16


def _memory() -> Memory:
    memory = Memory.reserve(
        layers=1,
        pages=4 * PAGES_EACH,
        page_size=PAGE_SIZE,
        kv_heads=HEADS,
        head_dim=WIDTH,
        dtype=torch.float32,
        device="cpu",
    )
    generator = torch.Generator().manual_seed(1)
    for part in (memory.keys, memory.values):
        part.normal_(generator=generator)
    return memory


def _spans(counts: Sequence[int]) -> list[Span]:
    """Sessions of different lengths. In all but the first session, old positions are outside the window."""
    return [
        Span(
            pages=range(number * PAGES_EACH, (number + 1) * PAGES_EACH),
            base=0,
            visible=3 * number,
            end=40 + 7 * number,
            count=count,
        )
        for number, count in enumerate(counts)
    ]


@pytest.fixture
def fixed_threads() -> Iterator[None]:
    """Fix the number of threads. torch compiles code for one number of threads, and compiles it again for another."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("fixed_threads")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # from torch's compiler
@torch.inference_mode()
def test_compiled_attention_computes_what_plain_attention_does() -> None:
    plain = GatherAttention(_memory(), rope_base=1e4, pages_each=PAGES_EACH)
    compiled = FlexAttention(_memory(), rope_base=1e4, compiled=True)
    compiled.warm_up(16, heads=2 * HEADS)
    generator = torch.Generator().manual_seed(2)
    with torch.compiler.set_stance("fail_on_recompile"):
        for counts in ([3, 1, 5], [1], [1, 1, 1], [7, 2, 1, 6]):
            new = [
                torch.randn(sum(counts), heads, WIDTH, generator=generator)
                for heads in (2 * HEADS, HEADS, HEADS)
            ]
            ours, theirs = (attention.plan(_spans(counts))(0)(*new) for attention in (compiled, plain))
            torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("queries", "size"), [(1, 16), (16, 16), (17, 64), (64, 64), (65, 256), (4000, 4096)]
)
def test_queries_are_padded_to_few_sizes(queries: int, size: int) -> None:
    assert padded_size(queries) == size
