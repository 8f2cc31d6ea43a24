"""Makes the ranks of a CPU group compute the same numbers as one process. Imports torch only inside a function.

MKL chooses its kernel by the number of rows and threads, and its kernels add in different orders. The results of 60
tokens on one rank and of 4 × 15 on four ranks differed by 6.6e-7. The results of 1 thread and of 3 threads differed by
as much. In MKL's strict reproducibility mode (STRICT), all splits and thread counts that were tried gave equal bits.
This was so with AVX2 and also with AVX512. Without STRICT, neither AVX2 nor COMPATIBLE gave equal bits. The environment
variable ``MKL_CBWR`` sets the mode. MKL reads the variable at its first call, so it must be set before a rank starts,
or at least before the rank's first matrix product.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

CPU_ENVIRONMENT: Final[Mapping[str, str]] = {"MKL_CBWR": "AVX2,STRICT"}
"""Environment variables for the ranks of a CPU group. GPU ranks do not need them."""


def threads_for(cores: int, ranks: int) -> int:
    """CPU threads for each rank: the cores divided by the ranks, at least one."""
    return max(1, cores // max(1, ranks))


def rows_are_independent() -> bool:
    """Whether a row of a matrix product is the same, however many rows are computed at once. Tests one product."""
    import torch

    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(60, 512, generator=generator)
    weight = torch.randn(192, 512, generator=generator)
    whole = torch.nn.functional.linear(rows, weight)
    parts = [torch.nn.functional.linear(part.contiguous(), weight) for part in rows.chunk(4)]
    return torch.equal(whole, torch.cat(parts))
