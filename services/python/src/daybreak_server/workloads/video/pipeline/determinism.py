"""What makes a CPU rank compute the same numbers as one process does. No torch is imported here.

MKL picks its kernel by the number of rows and threads, and kernels differ in the order of their sums: 60
tokens on one rank and 4 × 15 on four came out 6.6e-7 apart, as did 1 and 3 threads. In its strict
reproducible mode all splits and thread counts tried gave equal bits (AVX2 and AVX512; plain AVX2 and
COMPATIBLE did not). MKL reads the variable at its first call, so it must be set before a rank starts, or at
least before its first matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CPU_ENVIRONMENT: Final[Mapping[str, str]] = {"MKL_CBWR": "AVX2,STRICT"}
"""For whoever starts the ranks of a CPU group. A GPU rank does not need it."""


def threads_for(cores: int, ranks_here: int) -> int:
    """CPU threads for each of the ranks on one machine: an equal part of its cores, at least one."""
    return max(1, cores // max(1, ranks_here))


def rows_are_independent() -> bool:
    """Whether a matrix product's rows are the same however many are computed at once, tried now."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 512, generator=generator)
    weight = torch.randn(192, 512, generator=generator)
    whole = torch.nn.functional.linear(rows, weight)
    parts = [torch.nn.functional.linear(part.contiguous(), weight) for part in rows.chunk(4)]
    return torch.equal(whole, torch.cat(parts))
